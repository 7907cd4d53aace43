"""What `moulin serve` and `moulin repo build` share: from folders on the command line to models of a repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moulin.errors import OptionsError
from moulin.triton_repo.contract import MODEL_NAME, streaming_name_beside

if TYPE_CHECKING:
    from moulin.bundle.checkpoint_choice import CheckpointChoice
    from moulin.bundle.choice import Mode
    from moulin.bundle.files import Precision
    from moulin.bundle.spec import ModelSpec
    from moulin.encoders.recipe import Recipe
    from moulin.models.engines import Engine
    from moulin.triton_repo.ensemble.components import Backend

NameOption = Annotated[
    str | None,
    typer.Option(help=f"The model's name in Triton, with two models the offline one's.  [default: {MODEL_NAME}]"),
]
StreamingNameOption = Annotated[
    str | None,
    typer.Option(
        help="The streaming model's name in Triton.  "
        f"[default: {MODEL_NAME}, beside an offline model its name and _streaming]"
    ),
]
MaxBatchOption = Annotated[
    int | None,
    typer.Option(help="Most utterances in a batch, and in a request; most streams in a step.  [default: 64; 16]"),
]
InstancesOption = Annotated[int, typer.Option(help="Processes that each hold the model and share the threads.")]
CudaGraphsOption = Annotated[
    bool,
    typer.Option("--cuda-graphs/--no-cuda-graphs", help="Launch whole passes of a checkpoint on a GPU at once."),
]
MaxAudioOption = Annotated[float, typer.Option(help="Refuse longer utterances (offline).")]
MaxStreamsOption = Annotated[int, typer.Option(help="Streams that may be open at once.")]
MaxStepOption = Annotated[
    float | None,
    typer.Option(help="Refuse new streams while a chunk takes longer than so many milliseconds.  [default: never]"),
]
LingerOption = Annotated[
    float,
    typer.Option(
        help="Let a call of Triton's wait so many milliseconds for its replies, to give them back together (streams on "
        "a GPU)."
    ),
]
IdleTimeoutOption = Annotated[float, typer.Option(help="Close a stream after so long without a request.")]
LayoutOption = Annotated[
    Literal["fused", "ensemble"],
    typer.Option(
        help="fused: one Triton model does everything. ensemble: sherpa's layout, a Triton model for each part."
    ),
]
EndpointOption = Annotated[
    bool, typer.Option("--endpoint/--no-endpoint", help="Cut streams into segments at pauses; a stream may choose.")
]


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model and the name that it gets in Triton."""

    spec: ModelSpec
    name: str
    precision: Precision
    """What runs."""


def load_models(
    models: Sequence[Path],
    *,
    precision: Precision | None,
    name: str | None,
    streaming_name: str | None,
    engine: Engine | None = None,
    device: str = "cpu",
    recipe: Recipe | None = None,
    choice: CheckpointChoice | None = None,
    tokens: Path | None = None,
    mode: Mode | None = None,
    language: str | None = None,
    onnx_only: bool = False,
) -> list[NamedModel]:
    """At most one offline and one streaming model, with their names, by `runnable_of_mode`.

    Several checkpoint files are one model, their average; `choice` and `tokens` as for `chosen_model`, and `recipe`
    says of checkpoints what they do not tell. Checkpoints are of the `mode` that is asked for, else offline unless
    their exports are streaming ones, and taken from a folder with both where the `engine` runs checkpoints. Raises
    BundleError, OptionsError, EngineError or FetchError.
    """
    from moulin.bundle.checkpoint_choice import CheckpointChoice
    from moulin.bundle.checkpoint_files import is_checkpoint
    from moulin.bundle.load_model import load_model
    from moulin.cli.chosen_model import chosen_model
    from moulin.cli.messages import warn_of
    from moulin.cli.runnable_model import runnable_of_mode
    from moulin.models.engines import choose_engine, device_of, file_precision
    from moulin.models.precisions import precision_for, running

    files = len(models) > 1 and all(model.suffix == ".pt" for model in models)
    if files or tokens is not None or (choice is not None and choice.is_made):
        models, recipe = [chosen_model(models, choice or CheckpointChoice(), tokens=tokens, recipe=recipe)], None
    specs: dict[str, ModelSpec] = {}
    for model in models:
        found = runnable_of_mode(
            model,
            engine=engine,
            precision=precision,
            device=device,
            mode=mode,
            language=language,
            onnx_only=onnx_only,
            recipe=recipe,
        )
        prefer_checkpoint = engine == "torch"
        checkpoint = is_checkpoint(found.path, preferred=prefer_checkpoint)
        streaming = found.mode == "streaming" and checkpoint
        if checkpoint and found.mode is None and "streaming" in str(model).lower():
            typer.echo(f"{model} is taken for whole utterances; --streaming is for live audio", err=True)
        spec = load_model(
            found.path,
            precision=file_precision(engine, precision),
            expect="streaming" if streaming else None,
            prefer_checkpoint=prefer_checkpoint,
        )
        warn_of(spec)
        chosen = choose_engine(spec, engine)
        spec = running(spec, chosen, device_of(chosen, device), precision)
        if spec.mode in specs:
            raise OptionsError(
                f"Expected one offline and one streaming model at most, got two {spec.mode} ones: "
                f"{specs[spec.mode].path} and {spec.path}",
                hint="serve the second one with other ports, or build both into one repository with --name"
                + ("; to serve a checkpoint for streams beside it, `moulin export --streaming` it first" * checkpoint),
            )
        specs[spec.mode] = spec
    if streaming_name is not None and "streaming" not in specs:
        raise OptionsError("--streaming-name is given, but there is no streaming model")

    def named_as(spec: ModelSpec, its_name: str) -> NamedModel:
        chosen = choose_engine(spec, engine)
        return NamedModel(spec, its_name, precision_for(spec, chosen, device_of(chosen, device), precision))

    named = []
    if "offline" in specs:
        named.append(named_as(specs["offline"], name or MODEL_NAME))
    if "streaming" in specs:
        usual = streaming_name_beside(named[0].name) if named else name or MODEL_NAME
        named.append(named_as(specs["streaming"], streaming_name or usual))
    if len({model.name for model in named}) < len(named):
        raise OptionsError(f"Expected two different names, got {named[0].name!r} twice")
    return named


def build_models(
    models: Sequence[NamedModel],
    to: Path,
    *,
    link: bool,
    layout: Literal["fused", "ensemble"],
    backend: Backend,
    engine: Engine | None,
    device: str,
    cuda_graphs: bool,
    threads: int | None,
    max_batch: int | None,
    instances: int,
    max_audio_sec: float,
    max_streams: int,
    idle_timeout_sec: float,
    max_step_ms: float | None,
    linger_ms: float,
    stream_changes: Mapping[str, Any],
    decoding_changes: Mapping[str, Any],
) -> list[Path]:
    """Write each model's folder into the repository `to`. Every option is checked before anything is written, and
    engines for TensorRT are built."""
    from moulin.decoding.options import DecodingOptions
    from moulin.models.engines import device_of
    from moulin.streaming.options import StreamOptions
    from moulin.triton_repo.ensemble.repository import build_offline_ensemble, build_tied_streams
    from moulin.triton_repo.offline_config import OfflineOptions
    from moulin.triton_repo.repository import build_offline_repository, build_streaming_repository
    from moulin.triton_repo.streaming_config import StreamingOptions

    # An engine for our own process, or for Triton's backend.
    on_tensorrt = backend == "tensorrt" if layout == "ensemble" else engine == "tensorrt"
    name, device = models[0].name, device_of("tensorrt" if on_tensorrt else engine, device)
    offline = OfflineOptions(
        model_name=name,
        engine=engine,
        device=device,
        cuda_graphs=cuda_graphs,
        threads=threads,
        max_batch=OfflineOptions.max_batch if max_batch is None else max_batch,
        instances=instances,
        max_audio_sec=max_audio_sec,
        decoding=DecodingOptions().updated(decoding_changes),
    )
    streaming = StreamingOptions(
        model_name=models[-1].name,
        engine=engine,
        device=device,
        cuda_graphs=cuda_graphs,
        threads=threads,
        max_batch=max_batch,
        instances=instances,
        max_streams=max_streams,
        idle_timeout_sec=idle_timeout_sec,
        max_step_ms=max_step_ms,
        linger_ms=linger_ms,
        stream=StreamOptions().updated({**decoding_changes, **stream_changes}),
    )
    if on_tensorrt:
        from moulin.demo.files import demo_speech
        from moulin.tensorrt_engine.ready_plan import ready_plan

        for model in models:
            plan = ready_plan(
                model.spec,
                device=device,
                speech=demo_speech,
                precision=model.precision,
                max_batch=max_batch,
                max_audio_sec=max_audio_sec,
                say=partial(typer.echo, err=True),
            )
            if model.spec.streaming:
                streaming = replace(streaming, plan=plan)
            else:
                offline = replace(offline, plan=plan)
    folders = []
    for model in models:
        if layout == "ensemble" and model.spec.streaming:
            folder = build_tied_streams(model.spec, to, streaming, backend=backend, link=link)
        elif layout == "ensemble":
            folder = build_offline_ensemble(model.spec, to, offline, backend=backend, link=link)
        elif model.spec.streaming:
            in_what = replace(streaming, precision=model.precision)
            folder = build_streaming_repository(model.spec, to, in_what, link=link)
        else:
            folder = build_offline_repository(model.spec, to, replace(offline, precision=model.precision), link=link)
        folders.append(folder)
    return folders
