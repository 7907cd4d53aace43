"""Messages of the command line: a line and, where there is one, a hint, both on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from moulin.errors import MoulinError

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec


def show_error(error: MoulinError, about: str = "moulin") -> None:
    """Print `error`, with `about` in front unless the message begins with it."""
    line = error.message if error.message.startswith(f"{about} ") else f"{about}: {error.message}"
    typer.secho(line, err=True, fg=typer.colors.RED)
    if error.hint:
        typer.echo(f"  hint: {error.hint}", err=True)


def warn(doubt: str) -> None:
    """Print a warning about a doubtful assumption."""
    typer.echo(f"warning: {doubt}", err=True)


def warn_of(spec: ModelSpec) -> None:
    """Print a warning for each assumption about a model."""
    from moulin.bundle.spec import CheckpointSpec

    for doubt in spec.doubts if isinstance(spec, CheckpointSpec) else ():
        warn(doubt)
