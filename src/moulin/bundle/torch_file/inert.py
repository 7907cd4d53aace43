"""What stands in a checkpoint for an object that moulin does not rebuild."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_SCALARS = (str, bytes, float, complex, type(None))


@dataclass(frozen=True, slots=True, eq=False)
class Placeholder:
    """A class, function or object of the file that nothing here imports or calls. `name` is its module and name.

    `rebuild` is our own function for it, where there is one: it gets the arguments that the file gives.
    """

    name: str
    rebuild: Callable[..., object] | None = None


def rebuilt(what: object, arguments: object) -> object:
    """What the file would get by calling `what` with `arguments`: a value of our own function, or a Placeholder."""
    if not isinstance(what, Placeholder):
        return Placeholder(type(what).__name__)
    if what.rebuild is None or not isinstance(arguments, tuple):
        return Placeholder(what.name)
    try:
        return what.rebuild(*arguments)
    except (TypeError, ValueError, OverflowError):  # not the arguments that this function has
        return Placeholder(what.name)


def as_key(value: object) -> object:
    """`value` as a key of a dictionary. What could take long to hash (tuples in tuples, huge numbers) or has no hash is
    replaced; no checkpoint is asked for such a key."""
    if isinstance(value, tuple) and len(value) <= 16 and all(map(_is_quick, value)):
        return value
    return value if _is_quick(value) or isinstance(value, Placeholder) else Placeholder("key")


def _is_quick(value: object) -> bool:
    return isinstance(value, _SCALARS) or (isinstance(value, int) and value.bit_length() <= 128)
