"""`moulin doctor`: what works on this machine, what is missing, and how to get it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from moulin.cli.flags import only, with_flags
from moulin.cli.gateway_place import GatewayOptions
from moulin.cli.messages import styled
from moulin.launch.server_options import ServerOptions


def add_to(app: typer.Typer) -> None:
    app.command(name="doctor", epilog="Example: moulin doctor")(doctor)


@with_flags
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="An object a line.")] = False,
    *,
    server: ServerOptions,
    gateway: Annotated[GatewayOptions, only("port", "no_gateway")],
) -> None:
    """Check everything that `moulin serve` needs with the demo models: packages, the gateway's among them, the
    environment that Triton runs in, ports, shared memory, the cache.

    Changes nothing. Exits with 1 where something required is missing.
    """
    from dataclasses import asdict

    from moulin.launch.doctor import examine

    checks = examine(
        http_port=server.http_port,
        grpc_port=server.grpc_port,
        metrics_port=server.metrics_port,
        gateway_port=None if gateway.no_gateway else gateway.port,
        host=server.host,
    )
    width = max(len(check.name) for check in checks)
    for check in checks:
        if as_json:
            typer.echo(json.dumps(asdict(check), ensure_ascii=False))
            continue
        mark, color = ("ok", typer.colors.GREEN) if check.ok else ("missing", typer.colors.RED)
        if not check.ok and not check.required:
            mark, color = "absent", typer.colors.YELLOW
        typer.echo(f"{styled(f'{mark:8}', fg=color)} {check.name:{width}}  {check.detail}")
        if check.hint and not check.ok:
            typer.echo(f"{'':8} {'':{width}}  hint: {check.hint}")
    missing = [check.name for check in checks if check.required and not check.ok]
    if missing:
        typer.echo(f"\nNot ready to serve: {', '.join(missing)}", err=True)
        raise typer.Exit(1)
    typer.echo("\nReady to serve.", err=True)
