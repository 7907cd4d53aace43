"""Plots, warnings and numbers that pages of several kinds of benchmarks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Protocol

from moulin.evaluate.pages.blocks import Block, Paragraph, Plot, Table
from moulin.evaluate.pages.plots import NUM_COLOURS, Row, grouped_bars, legend

MAX_ROWS = 30
"""Rows of a plot, and alignments of a target."""


class Failing(Protocol):
    """Figures of a target, some of whose recordings or requests may have failed."""

    @property
    def target(self) -> str: ...

    @property
    def failures(self) -> int: ...

    @property
    def failure_examples(self) -> Sequence[str]: ...


def colours(names: Sequence[str]) -> dict[str, int]:
    """A place in the palette for each of `names`."""
    return {name: number % NUM_COLOURS for number, name in enumerate(names)}


def figure(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def table_of(rows: Sequence[Any]) -> Table:
    """A row for each of the dataclasses `rows`, a column for each of their fields."""
    names = [field.name for field in fields(rows[0])]
    cells = [[_cell(getattr(row, name)) for name in names] for row in rows]
    return Table([name.replace("_", " ") for name in names], cells)


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(its)}" for name, its in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
    return "-" if value is None else str(value)


def filled_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table without the columns in which no row has anything."""
    filled = [column for column in range(len(header)) if any(row[column] != "-" for row in rows)]
    return Table([header[column] for column in filled], [[row[column] for column in filled] for row in rows])


def failures(results: Sequence[Failing]) -> list[Block]:
    """A warning for each of `results` in which something failed."""
    return [
        Paragraph(
            f"{result.target}: {result.failures} failed, for example: {'; '.join(result.failure_examples)}",
            warning=True,
        )
        for result in results
        if result.failures
    ]


def utterance_plot(errors: Mapping[str, Mapping[str, float]], palette: Mapping[str, int], note: str = "") -> list[Plot]:
    """A plot of the errors of recordings that have any, the worst first."""
    names = sorted({name for them in errors.values() for name, count in them.items() if count})
    if not names:
        return []
    worst = sorted(names, key=lambda name: -sum(them.get(name, 0) for them in errors.values()))
    groups = [
        (
            _short(name),
            [Row(target, [(target, them.get(name, 0.0), f"s{palette[target]}")]) for target, them in errors.items()],
        )
        for name in worst[:MAX_ROWS]
    ]
    total = len({name for them in errors.values() for name in them})
    title = f"Word errors by recording{f', {note}' if note else ''}: {len(names)} of {total} have any"
    keys = legend([(target, f"s{palette[target]}") for target in errors])
    return [Plot(title, grouped_bars(groups, x_label="word errors") + keys)]


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"
