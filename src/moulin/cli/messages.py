"""How the command line says what is wrong: a line and, where there is one, a hint, both on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from moulin.errors import MoulinError

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec


def show_error(error: MoulinError, about: str = "moulin") -> None:
    """Print `error`, after what it is `about` unless the message names that first."""
    line = error.message if error.message.startswith(f"{about} ") else f"{about}: {error.message}"
    typer.secho(line, err=True, fg=typer.colors.RED)
    if error.hint:
        typer.echo(f"  hint: {error.hint}", err=True)


def warn(doubt: str) -> None:
    """A line about what may be otherwise."""
    typer.echo(f"warning: {doubt}", err=True)


def warn_of(spec: ModelSpec) -> None:
    """A line for each thing that was taken for granted of a model."""
    from moulin.bundle.spec import CheckpointSpec

    for doubt in spec.doubts if isinstance(spec, CheckpointSpec) else ():
        warn(doubt)
