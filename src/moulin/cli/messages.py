"""What the command line prints: results on standard output; on standard error what is done, warnings and errors.

A service takes the messages into its log (`messages_to`), so that all that it says has one form. A progress bar makes
way for both (`printed_by`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import typer

from moulin.errors import MoulinError

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec

PLAIN_TERMINALS = ("dumb", "unknown")
"""Values of TERM for terminals without colours, and on which no line can be replaced."""

MessageSink = Callable[[int, str], None]
"""Called with a level of `logging` and a message."""


def styled(text: str, **style: Any) -> str:
    """`text` in the colours of `typer.style`, unless NO_COLOR is set or the terminal has none; `typer.echo` leaves them
    out off a terminal."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in PLAIN_TERMINALS:
        return text
    return typer.style(text, **style)


def echo(text: str, *, err: bool = False, **style: Any) -> None:
    """Print a line, above a progress bar where there is one."""
    with _printed_by[-1]():
        typer.echo(styled(text, **style) if style else text, err=err)


def show_error(error: MoulinError, about: str = "moulin") -> None:
    """Print `error`, with `about` in front unless the message begins with it."""
    line = error.message if error.message.startswith(f"{about} ") else f"{about}: {error.message}"
    echo(line, err=True, fg=typer.colors.RED)
    if error.hint:
        echo(f"  hint: {error.hint}", err=True)


def say(text: str) -> None:
    """Print what is being done, or was found."""
    _sinks[-1](logging.INFO, text)


def warn(doubt: str) -> None:
    """Print a warning about a doubtful assumption."""
    _sinks[-1](logging.WARNING, doubt)


def warn_of(spec: ModelSpec) -> None:
    """Print a warning for each assumption about a model."""
    from moulin.bundle.spec import CheckpointSpec

    for doubt in spec.doubts if isinstance(spec, CheckpointSpec) else ():
        warn(doubt)


@contextmanager
def messages_to(sink: MessageSink) -> Iterator[None]:
    """Within the block give `sink` what `say` and `warn` would print."""
    _sinks.append(sink)
    try:
        yield
    finally:
        _sinks.remove(sink)


def messages_are_taken() -> bool:
    """Whether something else than the terminal gets the messages."""
    return len(_sinks) > 1


@contextmanager
def printed_by(around: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Within the block print each line in a context that `around` makes."""
    _printed_by.append(around)
    try:
        yield
    finally:
        _printed_by.remove(around)


def _print(level: int, text: str) -> None:
    echo(f"warning: {text}" if level >= logging.WARNING else text, err=True)


_sinks: list[MessageSink] = [_print]
_printed_by: list[Callable[[], AbstractContextManager[None]]] = [nullcontext]
