"""The progress of `moulin bulk`: a bar on a terminal, or an object of JSON a line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import typer

from moulin.cli.bars import bars, bars_are_shown
from moulin.cli.messages import say

if TYPE_CHECKING:
    from moulin.bulk.progress import State

ProgressForm = Literal["auto", "bar", "lines", "json", "none"]

_JSON_EVERY_SEC, _LINE_EVERY_SEC = 2.0, 60.0


@dataclass(frozen=True, slots=True)
class Shown:
    """The `Listener` of a run that prints."""

    step: Callable[[str], None]
    state: Callable[[State], None]
    skipped: Callable[[str], None] = say


@contextmanager
def shown_progress(form: ProgressForm) -> Iterator[Shown]:
    """Shows steps and states on standard error, but for states as JSON, which go to standard output."""
    if form == "auto":
        form = "bar" if bars_are_shown() else "lines"
    if form == "none":
        yield Shown(lambda _: None, lambda _: None)
    elif form == "json":
        yield Shown(say, _seldom(_JSON_EVERY_SEC, lambda state: typer.echo(json.dumps(state.to_dict()))))
    elif form == "lines":
        yield Shown(say, _seldom(_LINE_EVERY_SEC, lambda state: say(_line(state))))
    else:
        with _bar() as shown:
            yield shown


@contextmanager
def _bar() -> Iterator[Shown]:
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn

    columns = BarColumn(), TaskProgressColumn(), TextColumn("{task.description}", markup=False)
    with bars(*columns) as progress:
        task = progress.add_task("Loading", total=None)
        yield Shown(
            lambda text: progress.update(task, description=text),
            lambda state: progress.update(task, total=state.total, completed=state.done, description=_line(state)),
        )


def _seldom(every_sec: float, show: Callable[[State], None]) -> Callable[[State], None]:
    last = 0.0

    def shown(state: State) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= every_sec:
            last = now
            show(state)

    return shown


def _line(state: State) -> str:
    left = "" if state.left_sec is None else f", {duration(state.left_sec)} left"
    failed = f", {state.failed:,} failed" if state.failed else ""
    return (
        f"{state.done:,} of {state.total:,} recordings{failed}, {state.recordings_a_sec:,.1f} a second, "
        f"{state.times_real_time:,.0f} times real time{left}"
    )


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 5 min, 3.2 h, 2.1 days."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
