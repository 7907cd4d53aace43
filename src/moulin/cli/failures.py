"""What ends a command with one line instead of a traceback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from moulin.cli.interrupt import interrupts
from moulin.errors import MoulinError, first_line
from moulin.launch.address_space import HINT, is_out_of_address_space
from moulin.launch.threads import HINT as MORE_THREADS
from moulin.launch.threads import is_out_of_threads
from moulin.log_form import LogFormat


def told(error: Exception) -> MoulinError | None:
    """`error` as a message and a hint; None for a fault of the program, which deserves its traceback."""
    if isinstance(error, MoulinError):
        return error
    if is_out_of_threads(error):
        return MoulinError("No more threads can be started (ulimit -u)", hint=MORE_THREADS)
    if is_out_of_address_space(error):
        return MoulinError(f"Too little address space (ulimit -v): {first_line(error)}", hint=HINT)
    if isinstance(error, OSError):
        # A full disk, a folder without permission: the system's own message is the best one.
        return MoulinError(str(error))
    return None


def logged(error: MoulinError, form: LogFormat) -> list[tuple[str, dict[str, str]]]:
    """The messages with which a service's log says `error`, each with its fields: lines of text, or one JSON object."""
    hint = error.hint
    if form == "json":
        return [(error.message, {"hint": hint} if hint else {})]
    return [(f"moulin: {error.message}", {}), *([(f"  hint: {hint}", {})] if hint else [])]


@contextmanager
def ending_in(log: Callable[[MoulinError], None]) -> Iterator[None]:
    """Within the block `log` is given what would end the command with one line, which then ends with status 1."""
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        failure = told(error)
        if failure is None or interrupts.count:  # a failure while the command ends is not worth a message
            raise
        log(failure)
        raise typer.Exit(1) from None
