"""`moulin repo`: Triton model repositories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moulin.cli.arguments import (
    BeamOption,
    DeviceOption,
    MethodOption,
    ModelArgument,
    PrecisionOption,
    decoding_changes,
)

app = typer.Typer(
    help="Build Triton model repositories.",
    epilog="Example: moulin repo build models/zipformer --to repository",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _repo() -> None:
    pass


@app.command(
    epilog="Example: moulin repo build models/zipformer --to repository && tritonserver --model-repository repository"
)
def build(
    model: ModelArgument,
    to: Annotated[Path, typer.Option(help="The repository to write into; other models in it are left alone.")],
    name: Annotated[str, typer.Option(help="The model's name in Triton.")] = "transducer",
    precision: PrecisionOption = None,
    device: DeviceOption = "cpu",
    max_batch: Annotated[int, typer.Option(help="Most utterances in a batch, and in a request.")] = 64,
    instances: Annotated[int, typer.Option(help="Processes that each hold the model.")] = 1,
    max_audio_sec: Annotated[float, typer.Option(help="Refuse longer utterances.")] = 120.0,
    method: MethodOption = None,
    beam: BeamOption = None,
    link: Annotated[bool, typer.Option("--link", help="Link to the model's files instead of copying them.")] = False,
) -> None:
    """Write a Triton repository that serves MODEL with the public contract."""
    from moulin.bundle.load import load_bundle
    from moulin.decoding.options import DecodingOptions
    from moulin.triton_repo.offline_config import OfflineOptions
    from moulin.triton_repo.repository import build_offline_repository

    options = OfflineOptions(
        model_name=name,
        device=device,
        max_batch=max_batch,
        instances=instances,
        max_audio_sec=max_audio_sec,
        decoding=DecodingOptions().updated(decoding_changes(method, beam)),
    )
    spec = load_bundle(model, precision=precision, expect="offline")
    model_dir = build_offline_repository(spec, to, options, link=link)
    typer.echo(f"Wrote {model_dir} ({spec.family}, {spec.mode}, {spec.precision})", err=True)
