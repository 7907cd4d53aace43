"""`moulin doctor`: what works on this machine, what is missing, and how to get it."""

from __future__ import annotations

import typer

from moulin.cli.arguments import PortOption


def add_to(app: typer.Typer) -> None:
    app.command(name="doctor", epilog="Example: moulin doctor")(doctor)


def doctor(
    http_port: PortOption = 8000,
    grpc_port: PortOption = 8001,
    metrics_port: PortOption = 8002,
) -> None:
    """Check everything that `moulin serve` needs. Exits with 1 where something required is missing."""
    from moulin.launch.doctor import examine

    checks = examine(http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port)
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark, color = ("ok", typer.colors.GREEN) if check.ok else ("missing", typer.colors.RED)
        if not check.ok and not check.required:
            mark, color = "absent", typer.colors.YELLOW
        typer.echo(f"{typer.style(f'{mark:8}', fg=color)} {check.name:{width}}  {check.detail}")
        if check.hint and not check.ok:
            typer.echo(f"{'':8} {'':{width}}  hint: {check.hint}")
    missing = [check.name for check in checks if check.required and not check.ok]
    if missing:
        typer.echo(f"\nNot ready to serve: {', '.join(missing)}", err=True)
        raise typer.Exit(1)
    typer.echo("\nReady to serve.", err=True)
