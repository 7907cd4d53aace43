"""How the command line says what is wrong: a line and, where there is one, a hint, both on standard error."""

from __future__ import annotations

import typer

from moulin.errors import MoulinError


def show_error(error: MoulinError, about: str = "moulin") -> None:
    """Print `error`, after what it is `about` unless the message names that first."""
    line = error.message if error.message.startswith(f"{about} ") else f"{about}: {error.message}"
    typer.secho(line, err=True, fg=typer.colors.RED)
    if error.hint:
        typer.echo(f"  hint: {error.hint}", err=True)
