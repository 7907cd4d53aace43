"""Groups of commands, listed in help with the whole first sentence of each."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperGroup

HELP_WIDTH = 120
"""Characters of a line of help, where the terminal has so many."""

_SENTENCE = re.compile(r"(.+?\.)(?=\s|$)", re.DOTALL)


class Verbs(TyperGroup):
    """A group of commands. (click's types are not named: typer has brought its own click since 0.25.)"""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _first_sentence(command.help or "")) for name, command in commands if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _first_sentence(help: str) -> str:
    paragraph = " ".join(help.split("\n\n")[0].split())
    sentence = _SENTENCE.match(paragraph)
    return sentence[1] if sentence else paragraph
