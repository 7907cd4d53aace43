"""The numbers of a result on one line, for scripts: what is measured, without lists of single values and texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moulin.evaluate.report import Figures

_NOT_MEASURED = ("published",)
_SCALARS = (str, int, float, bool)


def summary_line(figures: Figures) -> str:
    """A JSON object by the names of the result's files: `{"kind": "requests", "runs": [{"target": …, …}], …}`."""
    found: dict[str, Any] = {}
    for name, value in _values(figures):
        if name not in _NOT_MEASURED and (kept := _kept(value)) is not None:
            found[name] = kept
    return json.dumps(found, ensure_ascii=False)


def _values(record: Any) -> list[tuple[str, Any]]:
    return [(one.name, getattr(record, one.name)) for one in fields(record)]


def _kept(value: Any) -> Any:
    """A number, text, record or list of records without the lists in it; a table of numbers; None for all else."""
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, Mapping):
        return dict(value) if value and all(isinstance(its, int | float) for its in value.values()) else None
    if isinstance(value, Sequence):
        return [_numbers(row) for row in value if is_dataclass(row)] or None
    return _numbers(value) if is_dataclass(value) else None


def _numbers(record: Any) -> dict[str, Any]:
    """The fields of a record that are no lists."""
    values = {name: value for name, value in _values(record) if isinstance(value, _SCALARS) or is_dataclass(value)}
    return {name: _numbers(value) if is_dataclass(value) else value for name, value in values.items()}
