"""The options that training stores beside a model, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Entries that are not options: the model, the state of its training, and the training's environment.
_OTHERS = {"model", "model_avg", "optimizer", "scheduler", "grad_scaler", "sampler", "env_info"}
_MOST_VALUES = 1000
_DEEPEST = 8
_LONGEST_TEXT = 10_000


class _NotPlain(Exception):
    pass


def plain_parameters(content: object) -> Mapping[str, Any]:
    """The plain values of a checkpoint's dictionary by name: strings, numbers, booleans, None, and lists and
    dictionaries of these (tuples and sets become lists). Other and very large values are left out."""
    if not isinstance(content, dict):
        return {}
    plain: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(name, str) and name not in _OTHERS:
            try:
                plain[name] = _Plain().of(value, _DEEPEST)
            except _NotPlain:
                continue
    return plain


class _Plain:
    def __init__(self) -> None:
        self._left = _MOST_VALUES

    def of(self, value: object, depth: int) -> Any:
        """`value` in plain form. Raises _NotPlain. Depth and number are limited, because a value may contain itself."""
        self._left -= 1
        if self._left < 0 or depth < 0:
            raise _NotPlain
        match value:
            case None | bool() | float():
                return value
            case int() if value.bit_length() <= 64:
                return value
            case str() if len(value) <= _LONGEST_TEXT:
                return value
            case list() | tuple():
                return [self.of(item, depth - 1) for item in value]
            case set() | frozenset():
                return sorted((self.of(item, depth - 1) for item in value), key=repr)
            case dict():
                return {str(self.of(key, 0)): self.of(item, depth - 1) for key, item in value.items()}
        raise _NotPlain
