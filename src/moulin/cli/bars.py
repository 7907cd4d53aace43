"""Progress bars on standard error, which make way for what is printed meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from moulin.cli.messages import PLAIN_TERMINALS, messages_are_taken, printed_by

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def bars_are_shown() -> bool:
    """Whether there is a terminal for bars, and no log that takes the messages."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in PLAIN_TERMINALS and not messages_are_taken()


@contextmanager
def bars(*columns: ProgressColumn) -> Iterator[Progress]:
    """Rich's progress with these columns, gone at the end of the block.

    Rich's own redirection of the standard streams does not see what typer prints, which would be glued to a bar.
    """
    from rich.console import Console
    from rich.progress import Progress

    shown = Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    )
    with shown, printed_by(partial(_without, shown)):
        yield shown


@contextmanager
def _without(shown: Progress) -> Iterator[None]:
    """The bars are away within the block."""
    shown.stop()
    try:
        yield
    finally:
        shown.start()
