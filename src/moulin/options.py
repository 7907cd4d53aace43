"""Options as fields of frozen dataclasses: each field says its default, bounds and help once.

From a field come the flag of the command line (`cli.flags`), the check of its value (`check_options`) and its place in
JSON (`to_json`, `from_json`). An options dataclass may hold others, and say the heading above its flags in help
(`section_of`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import cache
from math import inf
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from moulin.errors import OptionsError
from moulin.quoting import quoted

_Options = TypeVar("_Options")
_KEY = "moulin.options"
_NUMBERS = (int, float)
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range of a number; NaN is outside of every range."""

    at_least: float = -inf
    above: float = -inf
    at_most: float = inf
    below: float = inf

    def hold(self, value: float) -> bool:
        # With infinity as a bound infinity itself is allowed.
        low = value >= self.at_least and (value > self.above or self.above == -inf)
        return low and value <= self.at_most and (value < self.below or self.below == inf)

    def __str__(self) -> str:
        """The bounds as they follow the option's name in a message: `of at least 1`."""
        if self.at_least > -inf and self.at_most < inf:
            return f"of {shown(self.at_least)} to {shown(self.at_most)}"
        said = {"of at least": self.at_least, "above": self.above, "of at most": self.at_most, "below": self.below}
        return " and ".join(f"{words} {shown(bound)}" for words, bound in said.items() if abs(bound) < inf)


def shown(bound: float) -> str:
    """A bound as messages and help say it: 0.5, 1024, 1e6."""
    return f"{bound:g}".replace("e+0", "e")


@dataclass(frozen=True, slots=True)
class Facts:
    """Properties of an option beside its type and default."""

    help: str | None
    """None for an option without a flag."""
    flag: str | None
    """The flag's spelling where it does not follow from the field's name, say `--iter`."""
    metavar: str | None
    usual: str | None
    """The default in the words of help where the value, often None, says nothing: `all`."""
    bounds: Bounds


def option(
    default: object,
    help: str = "",
    *,
    flag: str | None = None,
    metavar: str | None = None,
    usual: str | None = None,
    bounds: Bounds = Bounds(),
) -> Any:
    """A field of an options dataclass that has a flag."""
    return field(default=default, metadata={_KEY: Facts(help, flag, metavar, usual, bounds)})


def section_of(options: type) -> str | None:
    """The heading above the flags of an options dataclass in help, which it says as `help_section: ClassVar[str]`."""
    said: str | None = getattr(options, "help_section", None)
    return said


def setting(default: object, *, bounds: Bounds) -> Any:
    """A field of an options dataclass that has bounds, and no flag."""
    return field(default=default, metadata={_KEY: Facts(None, None, None, None, bounds)})


def held(options: type[_Options]) -> _Options:
    """A field of an options dataclass that holds another one, by default with all of its defaults."""
    made: _Options = field(default_factory=options)
    return made


def facts_of(one: Field[Any]) -> Facts | None:
    """The facts of a field; None where it was made neither by `option` nor by `setting`."""
    return one.metadata.get(_KEY)


@cache
def types_of(options: type) -> dict[str, Any]:
    """The types of the fields of `options`, an options dataclass, by name."""
    hints = get_type_hints(options)
    return {one.name: hints[one.name] for one in fields(options)}


def plain_type(kind: Any) -> tuple[Any, bool]:
    """A field's type without None, and whether None was there."""
    if get_origin(kind) not in (UnionType, Union):
        return kind, False
    (plain,) = (one for one in get_args(kind) if one is not NoneType)
    return plain, True


def spelled(one: Field[Any]) -> str:
    """The option's name in messages: its flag without the dashes in front."""
    facts = facts_of(one)
    flag = facts.flag if facts and facts.flag else one.name.replace("_", "-")
    return flag.split("/")[0].lstrip("-")


def check_options(options: Any) -> None:
    """Raises OptionsError where a number, word or path is of another type or out of its bounds."""
    types = types_of(type(options))  # type: ignore[arg-type]
    for one in fields(options):
        facts = facts_of(one)
        _check(spelled(one), types[one.name], facts.bounds if facts else Bounds(), getattr(options, one.name))


def _check(name: str, kind: Any, bounds: Bounds, value: Any) -> None:
    plain, optional = plain_type(kind)
    if value is None and optional:
        return
    if get_origin(plain) is Literal:
        if value not in get_args(plain):
            raise OptionsError(f"Expected {name} to be one of {', '.join(get_args(plain))}, got {quoted(value)}")
        return
    if plain not in _KINDS:  # held options dataclasses, and types that are not checked
        return
    fits = int | float if plain is float else plain
    if not isinstance(value, fits) or (isinstance(value, bool) and plain is not bool):
        raise OptionsError(f"Expected {name} to be {_KINDS[plain]}, got {quoted(value)}")
    if plain in _NUMBERS and not bounds.hold(value):
        raise OptionsError(f"Expected {name} {bounds}, got {_said(value)}")


def _said(value: float) -> str:
    """A number that was refused; an integer may be beyond the range of floats."""
    return quoted(value) if isinstance(value, int) else f"{value:g}"


def to_json(options: Any) -> str:
    """An options dataclass and those that it holds as a JSON object, paths as text."""
    return json.dumps(_to_dict(options))


def from_json(options: type[_Options], text: str) -> _Options:
    """The options that `to_json` wrote. Missing ones have their defaults; unknown ones are refused.

    Raises OptionsError, also for values that the dataclass refuses.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionsError(f"The options are not JSON: {error}") from None
    return _from_dict(options, values, "the options")


def _to_dict(options: Any) -> dict[str, Any]:
    return {one.name: _plain(getattr(options, one.name)) for one in fields(options)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return _to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.as_posix() if isinstance(value, Path) else value


def _from_dict(options: type[_Options], values: object, where: str) -> _Options:
    types = types_of(options)  # type: ignore[arg-type]
    if not isinstance(values, Mapping):
        raise OptionsError(f"Expected {where} to be a JSON object, got {type(values).__name__}")
    for name in values:
        if name not in types:
            raise OptionsError(f"There is no option {quoted(name)} in {where}", hint=f"there are {', '.join(types)}")
    return options(**{name: _read(types[name], value, name) for name, value in values.items()})


def _read(kind: Any, value: Any, name: str) -> Any:
    plain, _ = plain_type(kind)
    if is_dataclass(plain):
        return _from_dict(plain, value, name)  # type: ignore[arg-type]
    if get_origin(plain) is tuple and isinstance(value, list):
        return tuple(value)
    return Path(value) if plain is Path and isinstance(value, str) else value
