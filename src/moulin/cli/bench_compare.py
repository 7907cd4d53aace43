"""`moulin bench compare`: what changed between two results, and whether it is beyond noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from moulin.evaluate.compare import Change


def add_to(app: typer.Typer) -> None:
    app.command(
        name="compare",
        epilog="Example: moulin bench compare before.json after.json --fail-on-worse",
        no_args_is_help=True,
    )(compare)


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A result: what --to FILE.json wrote.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another of the same benchmark.")],
    fail_on_worse: Annotated[
        bool, typer.Option("--fail-on-worse", help="Exit with 1 where anything is worse beyond noise.")
    ] = False,
) -> None:
    """What changed from A to B, with a 95 % interval of each difference.

    Word errors are compared recording by recording, speeds by rounds or runs, of which three at least are needed on
    each side (bench offline --rounds, bench streaming --rounds). Targets are paired by name.
    """
    from moulin.evaluate.compare import compare as compare_reports
    from moulin.evaluate.compare import differences
    from moulin.evaluate.report_files import read_report

    old, new = read_report(a), read_report(b)
    changes = compare_reports(old, new)
    width = max(len(change.what) for change in changes)
    typer.echo(f"{'':{width}}          A          B   difference  95 % interval")
    for change in changes:
        typer.echo(_row(change, width))
    if any(change.disturbed for change in changes):
        typer.echo(
            "\nOther processes disturbed some of the runs: measure those again, on a machine with nothing else to do."
        )
    if different := differences(old, new):
        typer.echo("\nAlso different:")
        for line in different:
            typer.echo(f"  {line}")
    if fail_on_worse and any(change.verdict == "worse" for change in changes):
        raise typer.Exit(1)


def _row(change: Change, width: int) -> str:
    digits = 2 if change.unit == "%" else 1
    interval = (
        f"{change.low:+.{digits}f} to {change.high:+.{digits}f}"
        if change.low is not None and change.high is not None
        else "unknown"
    )
    values = "".join(f"{value:9.{digits}f}{change.unit:2}" for value in (change.a, change.b))
    difference = f"{change.b - change.a:+.{digits}f}"
    return f"{change.what:{width}}{values}{difference:>12}  {interval:20}  {change.verdict} ({change.basis})"
