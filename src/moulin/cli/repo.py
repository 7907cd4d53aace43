"""`moulin repo`: Triton model repositories."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from moulin.cli.flags import with_flags, without
from moulin.cli.model_options import ModelOptions
from moulin.cli.models import DeviceList, Services, build_models, load_models
from moulin.cli.verbs import VerbApp
from moulin.cli.wish import mode_of
from moulin.engine.device import device_list
from moulin.errors import BundleError, LaunchError, OptionsError

app = VerbApp(
    help="Build Triton model repositories.",
    epilog="Example: moulin repo build models/zipformer --to repository",
)


@app.callback()
def _repo() -> None:
    pass


@app.command(
    epilog="Example: moulin repo build models/zipformer --to repository && moulin serve --repository repository"
)
@with_flags
def build(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL",
            help="Folders with ONNX files and tokens.txt: an offline model, a streaming one, or both.",
        ),
    ],
    to: Annotated[Path, typer.Option(help="The repository to write into; other models in it are left alone.")],
    streaming: Annotated[
        bool | None,
        typer.Option(
            "--streaming/--offline",
            help="Build a checkpoint for live audio or for whole utterances; refuse exports of the other kind.  "
            "[default: exports are taken as they are, a checkpoint is for whole utterances]",
        ),
    ] = None,
    backend: Annotated[
        Literal["python", "onnxruntime", "tensorrt"] | None,
        typer.Option(
            help="What runs the networks of the ensemble: ONNX Runtime in the python backend, or a backend of Triton's "
            "own.  [default: python]"
        ),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Link to the model's files instead of copying them.")] = False,
    device: DeviceList = "cpu",
    *,
    said: ModelOptions,
    services: Annotated[Services, without("threads", "device")],
) -> None:
    """Write a Triton repository that serves models with the public contract.

    Of a checkpoint that `moulin serve` serves both ways, a build writes one form: build again to the same folder, with
    --streaming --name transducer_streaming, for the other. The repository is run by `moulin serve --repository DIR`, or
    by a tritonserver with the command that is printed in the end.
    """
    if backend is not None and services.layout != "ensemble":
        raise OptionsError("--backend is for --layout ensemble")
    services = services.on(device_list(device))
    engine, wanted = services.engine, mode_of(streaming)
    named = load_models(
        models,
        replace(engine, kind="tensorrt") if backend == "tensorrt" else engine,
        said=said,
        names=services.names,
        mode=wanted,
        onnx_only=services.layout == "ensemble",
        host_search=services.host_search,
    )
    if wanted is not None:
        for model in named:
            if model.spec.mode != wanted:
                raise BundleError(
                    f"Expected {wanted} models, got the {model.spec.mode} {model.spec.family} in {model.spec.path}",
                    hint=f"leave out --{wanted}, or pass another folder",
                )
    folders = build_models(named, to, services, backend=backend or "python", link=link)
    for model, folder in zip(named, folders, strict=True):
        spec = model.spec
        typer.echo(f"Wrote {folder} ({spec.family}, {spec.mode}, {model.precision})", err=True)
    _say_how_to_serve(to, {model.engine.kind or "" for model in named}, backend)


def _say_how_to_serve(repository: Path, engines: Collection[str], backend: str | None) -> None:
    from moulin.launch.bare_command import bare_command
    from moulin.launch.tritonserver import find_tritonserver

    plain = f"  tritonserver --model-repository={shlex.quote(str(repository.resolve()))} --disable-auto-complete-config"
    if backend not in (None, "python"):
        typer.echo(
            f"\nServe it where Triton has its own {backend} backend and moulin is installed, as in NVIDIA's container "
            f"(the tritonserver from pip has no such backend):\n{plain}",
            err=True,
        )
        return
    typer.echo(f"\nServe it:\n  moulin serve --repository {shlex.quote(str(repository))}", err=True)
    try:
        installation = find_tritonserver(engines=engines, make=False)
    except LaunchError:
        # Built here, served elsewhere: in NVIDIA's container, say, where moulin is installed too.
        typer.echo(
            f"or, where a tritonserver has moulin in its Python, as in NVIDIA's container:\n{plain}\n"
            "The command for the tritonserver from pip is printed here once `moulin serve` has run.",
            err=True,
        )
        return
    if len(str(repository.resolve()).split()) > 1:
        typer.echo(
            "or with a tritonserver, from a folder without a space in its path: its python stubs fail else", err=True
        )
        return
    typer.echo(f"or without moulin's care:\n  {bare_command(installation, repository)}", err=True)
