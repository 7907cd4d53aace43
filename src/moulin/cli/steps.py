"""Steps of a command that take seconds to minutes: what is being done, and for how long already."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from moulin.cli.bars import bars, bars_are_shown
from moulin.cli.messages import say
from moulin.quoting import cut

_SHORT_SEC = 1.0
"""A step that took less is shown without its time."""

_BESIDE = 12
"""Columns for the spinner and the time, which rich would leave out where the text is wide."""


@contextmanager
def step(text: str) -> Iterator[None]:
    """Say `text` while the block runs: on a terminal with a spinner and the time so far, elsewhere as a line.

    On a terminal the line stays, with the seconds that the step took.
    """
    if not bars_are_shown():
        say(text)
        yield
        return
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    started = time.monotonic()
    with bars(SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()) as shown:
        shown.add_task(cut(text, max(10, shown.console.width - _BESIDE)), total=None)
        yield
    seconds = time.monotonic() - started
    say(f"{text} ({seconds:.0f} s)" if seconds >= _SHORT_SEC else text)
