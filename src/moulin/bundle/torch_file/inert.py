"""Placeholders for objects in a checkpoint that moulin does not rebuild."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_SCALARS = (str, bytes, float, complex, type(None))


@dataclass(frozen=True, slots=True, eq=False)
class Placeholder:
    """A class, function or object named in the file, which is neither imported nor called. `name` includes its module.

    `rebuild` is moulin's own function for it, if any, called with the arguments in the file.
    """

    name: str
    rebuild: Callable[..., object] | None = None


def rebuilt(what: object, arguments: object) -> object:
    """The result of the file's call of `what` with `arguments`: from moulin's own function, or a Placeholder."""
    if not isinstance(what, Placeholder):
        return Placeholder(type(what).__name__)
    if what.rebuild is None or not isinstance(arguments, tuple):
        return Placeholder(what.name)
    try:
        return what.rebuild(*arguments)
    except (TypeError, ValueError, OverflowError):  # the arguments do not fit the function
        return Placeholder(what.name)


def as_key(value: object) -> object:
    """`value` as a key of a dictionary. Values that are slow to hash (nested tuples, huge numbers) or unhashable become
    a Placeholder; no such key is ever looked up."""
    if isinstance(value, tuple) and len(value) <= 16 and all(map(_is_quick, value)):
        return value
    return value if _is_quick(value) or isinstance(value, Placeholder) else Placeholder("key")


def _is_quick(value: object) -> bool:
    return isinstance(value, _SCALARS) or (isinstance(value, int) and value.bit_length() <= 128)
