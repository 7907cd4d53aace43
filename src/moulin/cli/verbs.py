"""Verbs and groups of them, with help in plain text: no summary is cut, and flags stand below headings.

Rich's panels would take three times as long to come. click's types are not named: typer has brought its own click since
0.25.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

HELP_WIDTH = 120
"""Characters of a line of help, where the terminal has so many."""

_Function = TypeVar("_Function", bound=Callable[..., Any])
_SENTENCE = re.compile(r"(.+?\.)(?=\s|$)", re.DOTALL)
_TYPE = re.compile(r" <list\[.*\]>")
"""Python's type of an argument that is given several times, which typer shows behind its name."""
_ARGUMENTS, _OPTIONS = "Arguments", "Options"


class Verb(TyperCommand):
    """A command whose help has sections. Each flag names its heading in `rich_help_panel`; the others come first."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for heading, records in help_sections(self, ctx).items():
            with formatter.section(heading):
                formatter.write_dl(records)


class Verbs(TyperGroup):
    """A group of commands, listed with the whole first sentence of each."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _first_sentence(command.help or "")) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class VerbApp(typer.Typer):
    """A Typer app of `Verb` and `Verbs`; without arguments it shows its help."""

    def __init__(self, *, cls: type[TyperGroup] = Verbs, **settings: Any) -> None:
        super().__init__(
            cls=cls, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, **settings
        )

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_Function], _Function]:
        return super().command(name, cls=Verb, **settings)


def help_sections(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """For each heading of a command's help the names of its arguments or flags, and what is said of them."""
    sections: dict[str, list[tuple[str, str]]] = {_ARGUMENTS: [], _OPTIONS: []}
    for parameter in command.get_params(ctx):
        if record := parameter.get_help_record(ctx):
            names, text = record
            sections.setdefault(_heading(parameter), []).append((_TYPE.sub("", names), text))
    return {heading: records for heading, records in sections.items() if records}


def _heading(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return _ARGUMENTS
    return getattr(parameter, "rich_help_panel", None) or _OPTIONS


def _first_sentence(help: str) -> str:
    paragraph = " ".join(help.split("\n\n")[0].split())
    sentence = _SENTENCE.match(paragraph)
    return sentence[1] if sentence else paragraph
