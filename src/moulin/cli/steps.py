"""Steps of a command that take seconds to minutes: what is being done, how far it is, and for how long already."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from moulin.cli.bars import bars, bars_are_shown
from moulin.cli.messages import say
from moulin.quoting import cut

_SHORT_SEC = 1.0
"""A step that took less is shown without its time."""
_AGAIN_SEC = 15.0
"""Off a terminal a step that goes on is said again so often."""

_BESIDE = 12
"""Columns for the spinner and the time, which rich would leave out where the text is wide."""

HowFar = Callable[[int, int], None]
"""Called with the number of parts that are done, and of all."""


@contextmanager
def step(text: str) -> Iterator[HowFar]:
    """Say `text` while the block runs: on a terminal with a spinner and the time so far, elsewhere as a line, which
    comes again now and then. What the block tells of its parts stands beside it.

    On a terminal the line stays, with the seconds that the step took.
    """
    started = time.monotonic()
    if not bars_are_shown():
        say(text)
        with _said_again(text, started) as tell:
            yield tell
        return
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    with bars(SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()) as shown:
        task = shown.add_task("", total=None)

        def show(far: str = "") -> None:
            room = max(10, shown.console.width - _BESIDE - len(far))
            shown.update(task, description=cut(text, room) + far)

        show()
        yield lambda done, of: show(_far(done, of))
    seconds = time.monotonic() - started
    say(f"{text} ({seconds:.0f} s)" if seconds >= _SHORT_SEC else text)


@contextmanager
def _said_again(text: str, started: float) -> Iterator[HowFar]:
    far, ended = "", threading.Event()

    def tell(done: int, of: int) -> None:
        nonlocal far
        far = _far(done, of)

    def repeat() -> None:
        while not ended.wait(_AGAIN_SEC):
            say(f"{text}{far}, {time.monotonic() - started:.0f} s so far")

    thread = threading.Thread(target=repeat, name="moulin-step", daemon=True)
    thread.start()
    try:
        yield tell
    finally:
        ended.set()
        thread.join()


def _far(done: int, of: int) -> str:
    return f": {done} of {of}"
