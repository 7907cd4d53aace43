"""`moulin repo`: Triton model repositories."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import typer

from moulin.bundle.checkpoint_choice import CheckpointChoice
from moulin.cli.arguments import (
    BeamOption,
    DeviceOption,
    EngineOption,
    LanguageOption,
    MethodOption,
    PrecisionOption,
    decoding_changes,
)
from moulin.cli.checkpoint_options import AveragedModelOption, AvgOption, EpochOption, IterOption, TokensOption
from moulin.cli.models import (
    CudaGraphsOption,
    EndpointOption,
    IdleTimeoutOption,
    InstancesOption,
    LayoutOption,
    LingerOption,
    MaxAudioOption,
    MaxBatchOption,
    MaxStepOption,
    MaxStreamsOption,
    NameOption,
    StreamingNameOption,
    build_models,
    load_models,
)
from moulin.cli.recipe_options import (
    CausalOption,
    ChunkSizeOption,
    LeftContextOption,
    NumHeadsOption,
    PosHeadDimOption,
    RightContextOption,
    recipe_of_options,
)
from moulin.cli.wish import mode_of
from moulin.errors import BundleError, LaunchError, OptionsError

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
    epilog="Example: moulin repo build models/zipformer --to repository && moulin serve --repository repository"
)
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
        typer.Option("--streaming/--offline", help="Refuse models of the other kind.  [default: take what they are]"),
    ] = None,
    epoch: EpochOption = None,
    iteration: IterOption = None,
    avg: AvgOption = None,
    use_averaged_model: AveragedModelOption = False,
    tokens: TokensOption = None,
    chunk_size: ChunkSizeOption = None,
    left_context_frames: LeftContextOption = None,
    right_context: RightContextOption = None,
    causal: CausalOption = None,
    num_heads: NumHeadsOption = None,
    pos_head_dim: PosHeadDimOption = None,
    name: NameOption = None,
    streaming_name: StreamingNameOption = None,
    language: LanguageOption = None,
    precision: PrecisionOption = None,
    layout: LayoutOption = "fused",
    backend: Annotated[
        Literal["python", "onnxruntime", "tensorrt"] | None,
        typer.Option(
            help="What runs the networks of the ensemble: ONNX Runtime in the python backend, or a backend of Triton's "
            "own.  [default: python]"
        ),
    ] = None,
    engine: EngineOption = None,
    device: DeviceOption = "cpu",
    cuda_graphs: CudaGraphsOption = True,
    max_batch: MaxBatchOption = None,
    instances: InstancesOption = 1,
    max_audio_sec: MaxAudioOption = 120.0,
    max_streams: MaxStreamsOption = 1024,
    idle_timeout_sec: IdleTimeoutOption = 15.0,
    max_step_ms: MaxStepOption = None,
    linger_ms: LingerOption = 0.0,
    endpoint: EndpointOption = True,
    method: MethodOption = None,
    beam: BeamOption = None,
    link: Annotated[bool, typer.Option("--link", help="Link to the model's files instead of copying them.")] = False,
) -> None:
    """Write a Triton repository that serves models with the public contract.

    It is run by `moulin serve --repository DIR`, or by a tritonserver with the command that is printed in the end.
    """
    if backend is not None and layout != "ensemble":
        raise OptionsError("--backend is for --layout ensemble")
    changes = decoding_changes(method, beam)
    runs_on = "tensorrt" if backend == "tensorrt" else engine
    recipe = recipe_of_options(
        causal=causal,
        num_heads=num_heads,
        pos_head_dim=pos_head_dim,
        chunk_size=chunk_size,
        left_context_frames=left_context_frames,
        right_context=right_context,
        streaming=bool(streaming),
    )
    wanted = mode_of(streaming)
    named = load_models(
        models,
        precision=precision,
        name=name,
        streaming_name=streaming_name,
        engine=runs_on,
        device=device,
        recipe=recipe,
        choice=CheckpointChoice(epoch, iteration, avg, use_averaged_model),
        tokens=tokens,
        mode=wanted,
        language=language,
        onnx_only=layout == "ensemble",
    )
    if wanted is not None:
        for model in named:
            if model.spec.mode != wanted:
                raise BundleError(
                    f"Expected {wanted} models, got the {model.spec.mode} {model.spec.family} in {model.spec.path}",
                    hint=f"leave out --{wanted}, or pass another folder",
                )
    folders = build_models(
        named,
        to,
        link=link,
        layout=layout,
        backend=backend or "python",
        engine=engine,
        device=device,
        cuda_graphs=cuda_graphs,
        threads=None,
        max_batch=max_batch,
        instances=instances,
        max_audio_sec=max_audio_sec,
        max_streams=max_streams,
        idle_timeout_sec=idle_timeout_sec,
        max_step_ms=max_step_ms,
        linger_ms=linger_ms,
        stream_changes={"endpoint": endpoint},
        decoding_changes=changes,
    )
    for model, folder in zip(named, folders, strict=True):
        spec = model.spec
        typer.echo(f"Wrote {folder} ({spec.family}, {spec.mode}, {model.precision})", err=True)
    from moulin.models.engines import choose_engine

    _say_how_to_serve(to, {choose_engine(model.spec, runs_on) for model in named}, backend)


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
