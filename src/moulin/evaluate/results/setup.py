"""Facts about a measurement that several kinds of figures hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

SETTING: Mapping[str, bool] = {"setting": True}
"""Metadata of a field that a report lists among the settings, in the order of the fields."""


@dataclass(frozen=True, slots=True)
class Data:
    """The recordings that were measured on."""

    name: str
    recordings: int


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of latencies in milliseconds; None where there are none."""

    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    max: float | None


def settings(figures: Any) -> Iterator[tuple[str, object]]:
    """(name, value) of each field of `figures` that is marked as a SETTING and has a value."""
    for field in fields(figures):
        if field.metadata.get("setting") and (value := getattr(figures, field.name)):
            yield field.name, value
