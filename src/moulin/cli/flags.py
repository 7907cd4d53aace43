"""Flags made of options dataclasses: a field gives its flag's name, type, default and help.

    @with_flags
    def build(models: list[Path], engine: EngineChoice, offline: Annotated[OfflineOptions, without("threads")]) -> None:

has for Typer a flag for each field made by `moulin.options.option`, those of held dataclasses among them, and receives
dataclasses made from the given flags. Dataclasses with a flag of the same name share it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass
from math import inf
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

from moulin.options import Bounds, Facts, facts_of, plain_type, section_of, shown, spelled, types_of

_Command = TypeVar("_Command", bound=Callable[..., None])


@dataclass(frozen=True, slots=True)
class _Choice:
    """The fields, at any depth, that have flags in a command."""

    names: tuple[str, ...]
    named_ones: bool

    def takes(self, name: str) -> bool:
        return (name in self.names) == self.named_ones


_ALL = _Choice((), named_ones=False)


def only(*names: str) -> _Choice:
    """For `Annotated`: flags for these fields only."""
    return _Choice(names, named_ones=True)


def without(*names: str) -> _Choice:
    """For `Annotated`: flags for all fields but these."""
    return _Choice(names, named_ones=False)


@dataclass(frozen=True, slots=True)
class ChangesOf:
    """For `Annotated` with a dict: the values of the given flags of `options` by field, as its `updated` takes and
    checks them. `otherwise` tells in help where the other values come from."""

    options: type
    otherwise: str


@dataclass(frozen=True, slots=True)
class _Group:
    """The dataclass or changes that a command's parameter receives."""

    options: type
    choice: _Choice
    changes: ChangesOf | None = None

    def flagged(self) -> Iterator[_Flagged]:
        return _flagged(self.options, self.choice)

    def made(self, values: Mapping[str, Any]) -> Any:
        if self.changes is None:
            return _made(self.options, self.choice, values)
        given = {one.field.name: values[one.name] for one in self.flagged() if values[one.name] is not None}
        self.options().updated(given)
        return given


@dataclass(frozen=True, slots=True)
class _Flagged:
    """A field that has a flag."""

    field: Field[Any]
    facts: Facts
    kind: Any
    sections: tuple[str, ...]
    """Headings in help of the dataclass that has the field and of those around it, from the outermost."""

    @property
    def name(self) -> str:
        """The name of Typer's parameter, and of the flag without its dashes."""
        return spelled(self.field).replace("-", "_")

    @property
    def spelling(self) -> str:
        if self.facts.flag:
            return self.facts.flag
        plain, optional = plain_type(self.kind)
        flag = spelled(self.field)
        return f"--{flag}/--no-{flag}" if plain is bool and (optional or self.field.default) else f"--{flag}"

    @property
    def default_text(self) -> str | None:
        """The default as help shows it; None to show none."""
        default = self.field.default
        if self.facts.usual is not None or default is None or default is False:
            return self.facts.usual
        return spelled(self.field) if default is True else str(default)


def with_flags(command: _Command) -> _Command:
    """A command for Typer, made from one that takes options dataclasses."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, _Group] = {}
    given: dict[str, inspect.Parameter] = {}
    flags: dict[str, list[_Flagged]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        group = _group(hints[name])
        if group is None:
            given[name] = parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            continue
        groups[name] = group
        for one in group.flagged():
            flags.setdefault(one.name, []).append(one)
            given[one.name] = _parameter(flags[one.name], group.changes)

    @functools.wraps(command)
    def run(**values: Any) -> None:
        made = {name: group.made(values) for name, group in groups.items()}
        command(**made, **{name: value for name, value in values.items() if name not in flags})

    run.__signature__ = inspect.Signature(list(given.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in given.items()}
    return run  # type: ignore[return-value]


def flag_names(*options: type) -> set[str]:
    """The names in `typer.Context.params` of all flags of these dataclasses."""
    return {one.name for each in options for one in _flagged(each, _ALL)}


def option_of(options: type, name: str) -> Any:
    """For `Annotated`: one field's flag in a command that takes no dataclass; the parameter's default is None or the
    field's."""
    (one,) = _flagged(options, only(name))
    return _typer_option([one], None)


def _flagged(options: type, choice: _Choice, around: tuple[str, ...] = ()) -> Iterator[_Flagged]:
    section = section_of(options)
    sections = around if section is None else (*around, section)
    for one in fields(options):
        kind = types_of(options)[one.name]
        plain, _ = plain_type(kind)
        if is_dataclass(plain):
            yield from _flagged(plain, choice, sections)  # type: ignore[arg-type]
        elif facts := _offered(one, choice):
            yield _Flagged(one, facts, kind, sections)


def _offered(one: Field[Any], choice: _Choice) -> Facts | None:
    """The facts of a field; None where it has no flag in the command."""
    facts = facts_of(one)
    return facts if facts is not None and facts.help is not None and choice.takes(one.name) else None


def _group(hint: Any) -> _Group | None:
    kind, *said = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    for one in said:
        if isinstance(one, ChangesOf):
            return _Group(one.options, _ALL, one)
    if not is_dataclass(kind):
        return None
    choice = next((one for one in said if isinstance(one, _Choice)), _ALL)
    return _Group(kind, choice)  # type: ignore[arg-type]


def _parameter(alike: Sequence[_Flagged], changes: ChangesOf | None) -> inspect.Parameter:
    default = None if changes or _differ(alike) else alike[0].field.default
    plain, _ = plain_type(alike[0].kind)
    annotation: Any = Annotated[plain | None if default is None else plain, _typer_option(alike, changes)]
    return inspect.Parameter(alike[0].name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _differ(alike: Sequence[_Flagged]) -> bool:
    return any(one.field.default != alike[0].field.default for one in alike)


def _typer_option(alike: Sequence[_Flagged], changes: ChangesOf | None) -> Any:
    first = alike[0]
    texts = list(dict.fromkeys(one.facts.help for one in alike if one.facts.help))
    said = ["; ".join(texts)] if texts else []
    if changes:
        said.append(f"[default: {changes.otherwise}, or {first.default_text}]")
    elif usual := _usual(alike):
        said.append(f"[default: {usual}]")
    if bounds := _shown(first.facts.bounds):
        said.append(bounds)
    return typer.Option(
        first.spelling,
        help="  ".join(said),
        metavar=first.facts.metavar,
        show_default=False,
        rich_help_panel=_section(alike),
    )


def _usual(alike: Sequence[_Flagged]) -> str:
    """The defaults; where there are several, each with the heading of what it is for."""
    by_text: dict[str, _Flagged] = {}
    for one in alike:
        if (text := one.default_text) is not None:
            by_text.setdefault(text, one)
    if len(by_text) < 2:
        return "".join(by_text)
    return "; ".join(
        f"{text} for {one.sections[-1].lower()}" if one.sections else text for text, one in by_text.items()
    )


def _section(alike: Sequence[_Flagged]) -> str | None:
    """The heading above a flag: that of its dataclass, or around all that share the flag; None for the verb's own."""
    if len({one.sections[-1:] for one in alike}) == 1:
        return alike[0].sections[-1] if alike[0].sections else None
    shared = [titles[0] for titles in zip(*(one.sections for one in alike), strict=False) if len(set(titles)) == 1]
    return (shared or alike[0].sections or [None])[-1]


def _shown(bounds: Bounds) -> str:
    """The bounds as click shows them: `[1<=x<=1024]`."""
    low, low_sign = (bounds.above, "<") if bounds.above > -inf else (bounds.at_least, "<=")
    high, high_sign = (bounds.below, "<") if bounds.below < inf else (bounds.at_most, "<=")
    if low == -inf and high == inf:
        return ""
    if high == inf:
        return f"[x{low_sign.replace('<', '>')}{shown(low)}]"
    return f"[{shown(low)}{low_sign}x{high_sign}{shown(high)}]" if low > -inf else f"[x{high_sign}{shown(high)}]"


def _made(options: type, choice: _Choice, values: Mapping[str, Any]) -> Any:
    """`options` made from `values` by flag; None stands for a flag that was not given and keeps its default."""
    found = {}
    for one in fields(options):
        plain, _ = plain_type(types_of(options)[one.name])
        if is_dataclass(plain):
            found[one.name] = _made(plain, choice, values)  # type: ignore[arg-type]
        elif facts := _offered(one, choice):
            value = values[_Flagged(one, facts, plain, ()).name]
            if value is not None:
                found[one.name] = value
    return options(**found)
