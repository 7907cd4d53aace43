"""`moulin doctor`: what works on this machine, what is missing, and how to get it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from moulin.cli.arguments import PortOption


def add_to(app: typer.Typer) -> None:
    app.command(name="doctor", epilog="Example: moulin doctor")(doctor)


def doctor(
    http_port: PortOption = 8000,
    grpc_port: PortOption = 8001,
    metrics_port: PortOption = 8002,
    gateway_port: PortOption = 9000,
    no_gateway: Annotated[bool, typer.Option("--no-gateway", help="Check what Triton alone needs.")] = False,
    host: Annotated[str, typer.Option(help="Address that the service will listen on.")] = "127.0.0.1",
    as_json: Annotated[bool, typer.Option("--json", help="An object a line.")] = False,
) -> None:
    """Check everything that `moulin serve` needs with the demo models: packages, the gateway's among them, the
    environment that Triton runs in, ports, shared memory, the cache.

    Changes nothing. Exits with 1 where something required is missing.
    """
    from dataclasses import asdict

    from moulin.launch.doctor import examine

    checks = examine(
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        gateway_port=None if no_gateway else gateway_port,
        host=host,
    )
    width = max(len(check.name) for check in checks)
    for check in checks:
        if as_json:
            typer.echo(json.dumps(asdict(check), ensure_ascii=False))
            continue
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
