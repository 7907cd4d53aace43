"""`moulin warm`: the kernels of our GPU engine into the cache."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from moulin.cli.flags import with_flags, without
from moulin.cli.model_options import ModelOptions
from moulin.cli.models import Services, load_models
from moulin.cli.wish import mode_of
from moulin.errors import OptionsError
from moulin.start_progress import progress_lines


def add_to(app: typer.Typer) -> None:
    app.command(
        name="warm",
        epilog="Example: moulin warm models/zipformer --compute-capability 9.0 (in a Dockerfile, for example)",
        no_args_is_help=True,
    )(warm)


@with_flags
def warm(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL", help="What `moulin serve` will be given: folders, checkpoints, or names."),
    ],
    streaming: Annotated[
        bool | None,
        typer.Option("--streaming/--offline", help="For live audio or whole utterances alone.  [default: as `serve`]"),
    ] = None,
    compute_capability: Annotated[
        str | None,
        typer.Option(
            metavar="X.Y", help="Of the card that will serve: 9.0 for H100 and H200.  [default: of the card here]"
        ),
    ] = None,
    *,
    said: ModelOptions,
    services: Annotated[Services, without("name", "streaming_name", "layout")],
) -> None:
    """Compile the kernels of models for our GPU engine into the cache, for example when an image is built.

    Needs no GPU. Give it the options of `moulin serve --device cuda`, which then starts without compiling: kernels
    depend on the model's sizes, the precision, --max-batch of streams, --max-audio-sec and the beam, and are kept by
    the version of moulin and Triton-lang and the card's compute capability.
    """
    from moulin.models.warm_kernels import compute_capability as capability_of
    from moulin.models.warm_kernels import warm_kernels

    engine = services.engine
    if engine.kind not in (None, "torch"):
        raise OptionsError(f"Our GPU engine has kernels to compile, {engine.kind} has none", hint="leave out --engine")
    capability = capability_of(compute_capability, engine.runs_on)
    gpu = replace(engine, kind="torch", device="cuda" if engine.gpu is None else engine.device)
    for model in load_models(models, gpu, said=said, mode=mode_of(streaming), both_ways=True):
        began = time.monotonic()
        with progress_lines():
            count = warm_kernels(
                model.spec,
                capability,
                max_audio_sec=services.offline.max_audio_sec,
                max_batch=services.streaming.max_batch,
                beam=services.streaming.decoding.beam,
            )
        what = f"{model.spec.name} ({model.spec.family}, {model.spec.mode}, {model.precision})"
        took = f"compiled in {time.monotonic() - began:.1f} s" if count else "in the cache already"
        typer.echo(f"{what}: kernels for compute capability {capability / 10:.1f} {took}")
