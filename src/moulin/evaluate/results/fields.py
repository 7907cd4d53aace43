"""Dataclasses to JSON-ready dictionaries and back.

A field without a default is always there. A field whose default is None or empty is left out while it has that value,
unless it is marked as WRITTEN. Unknown keys are ignored, so that results of other versions can be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from moulin.errors import OptionsError

WRITTEN: Mapping[str, bool] = {"written": True}
"""Metadata of a field that is written whatever its value."""

_T = TypeVar("_T")


def to_json(value: Any) -> Any:
    """`value`, a dataclass or a value of its fields, as dictionaries, lists, strings and numbers."""
    if is_dataclass(value):
        found = ((field, getattr(value, field.name)) for field in fields(value))
        return {field.name: to_json(its) for field, its in found if not _left_out(field, its)}
    if isinstance(value, Mapping):
        return {str(key): to_json(its) for key, its in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(it) for it in value]
    return value


def from_json(cls: type[_T], found: Mapping[str, Any]) -> _T:
    """The inverse of `to_json`. Raises OptionsError where a field is missing."""
    assert is_dataclass(cls)
    hints, values = _hints(cls), {}
    for field in fields(cls):
        if field.name in found:
            values[field.name] = _value(hints[field.name], found[field.name])
        elif field.default is MISSING and field.default_factory is MISSING:
            raise OptionsError(f"Expected {field.name!r} among the figures of {cls.__name__}, got {', '.join(found)}")
    return cls(**values)


def _left_out(field: Field[Any], value: Any) -> bool:
    empty = (field.default is None and value is None) or (field.default == () and not value)
    return empty and not field.metadata.get("written")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _value(kind: Any, value: Any) -> Any:
    """`value` of JSON as the type `kind`."""
    if value is None:
        return None
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _value(next(it for it in arguments if it is not NoneType), value)
    if is_dataclass(kind):
        return from_json(kind, value)  # type: ignore[arg-type]
    if origin is not None and issubclass(origin, Mapping):
        return {key: _value(arguments[1], its) for key, its in value.items()}
    if origin is not None and issubclass(origin, Sequence):
        return tuple(_value(arguments[0], it) for it in value)
    return value
