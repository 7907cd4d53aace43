"""`moulin trt`: TensorRT engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moulin.cli.flags import with_flags
from moulin.cli.messages import say
from moulin.cli.model_options import ModelOptions
from moulin.cli.steps import step
from moulin.cli.verbs import VerbApp
from moulin.cli.wish import mode_of
from moulin.errors import EngineError, OptionsError
from moulin.launch.tensorrt_libraries import ARCHITECTURES, Architecture

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec

app = VerbApp(
    help="Build TensorRT engines.",
    epilog="Example: moulin trt build models/zipformer --to engines --max-batch 64",
)


@app.callback()
def _trt() -> None:
    pass


@app.command(epilog="Example: moulin trt build models/zipformer --to engines --dry-run")
@with_flags
def build(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A folder with fp32 ONNX files and tokens.txt, a checkpoint, or a published model."
        ),
    ],
    to: Annotated[
        Path | None,
        typer.Option(help="The folder to write the engine into.  [default: the cache, where --engine tensorrt looks]"),
    ] = None,
    precision: Annotated[Literal["fp16", "bf16", "fp32"], typer.Option(help="What the engine computes with.")] = "fp16",
    max_batch: Annotated[int, typer.Option(help="Most utterances, or streams, that go through it together.")] = 64,
    max_seconds: Annotated[
        float | None,
        typer.Option(
            help="Longest utterance, as the service's --max-audio-sec.  [default: 120, or what the model takes if it "
            "is less]"
        ),
    ] = None,
    workspace_gib: Annotated[
        float | None,
        typer.Option(
            help="GPU memory that TensorRT may take for trying, TensorRT-RTX for computing.  [default: 4; for "
            "TensorRT-RTX no limit]"
        ),
    ] = None,
    architecture: Annotated[
        Architecture | None,
        typer.Option(
            "--for",
            help="Build with TensorRT-RTX for all GPUs of this architecture; needs no GPU here.  "
            "[default: for this machine's GPU]",
        ),
    ] = None,
    gpu: Annotated[int, typer.Option(min=0, help="The GPU to build for, by number.")] = 0,
    streaming: Annotated[
        bool | None,
        typer.Option(
            "--streaming/--offline",
            help="Build a checkpoint, or of several exports one, for live audio or for whole utterances.  [default: "
            "exports are taken as they are, a checkpoint is for whole utterances]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the model, and print what trtexec would be told.")
    ] = False,
    head: Annotated[
        Literal["transducer", "ctc"] | None,
        typer.Option(help="As for `moulin serve`, of a model with both.  [default: the transducer]"),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the library's own log.")] = False,
    *,
    said: ModelOptions,
) -> None:
    """Build the TensorRT engine of a model's encoder, for this GPU, and hold it against ONNX Runtime on speech.

    It is the engine that `moulin serve --engine tensorrt` looks for with the same model and options. With --for it is
    built for other machines' GPUs, and held against ONNX Runtime where it is first served. An engine that is there
    already, built from the same files with the same settings, is kept; one that gives NaN, or differs by more than its
    precision explains, is not.
    """
    from moulin.bundle.spec import ExportedSpec
    from moulin.cli.models import load_models
    from moulin.demo.files import demo_speech
    from moulin.engine.limits import MAX_AUDIO_SEC
    from moulin.models.engine_choice import EngineChoice
    from moulin.tensorrt_engine.build import build_plan, prepare, this_gpu
    from moulin.tensorrt_engine.builders import (
        TRIALS_GIB,
        Builder,
        BuildRequest,
        builder_ahead,
        find_builder,
        trtexec_arguments,
    )
    from moulin.tensorrt_engine.plan_file import capability_of
    from moulin.tensorrt_engine.ready_plan import drift_check, engines_folder

    if workspace_gib is not None and not workspace_gib > 0:
        raise OptionsError(f"Expected workspace-gib above 0, got {workspace_gib:g}")
    # The same fp32 files that --engine tensorrt takes, and no GPU is needed to find them.
    files = EngineChoice("onnxruntime", precision="fp32", head=head)
    spec = load_models([model], files, said=said, mode=mode_of(streaming))[0].spec
    if max_seconds is not None:
        _check_max_seconds(spec, max_seconds)
    prepared = prepare(spec, precision=precision, max_batch=max_batch, max_seconds=max_seconds or MAX_AUDIO_SEC)
    nodes = len(prepared.model.graph.node)
    say(f"TensorRT takes the encoder of {spec.name}: {nodes} operators, {precision}")
    if dry_run:
        request = BuildRequest(
            Path("encoder.onnx"), Path("encoder.plan"), prepared.profiles, workspace_gib or TRIALS_GIB
        )
        typer.echo(" \\\n  ".join(["trtexec", *trtexec_arguments(request)]))
        return
    assert isinstance(spec, ExportedSpec)
    name: str | None = None
    check: Callable[[Path], float] | None = None
    log = say if verbose else None
    if architecture is not None:
        capabilities = ARCHITECTURES[architecture]
        builder: Builder = builder_ahead(capabilities[0], say=say, log=log)
        building = (
            f"Building it with {builder.library} {builder.version} for {architecture}, "
            f"compute capability {', '.join(builder.capabilities)} ..."
        )
        say("It will be compared with ONNX Runtime when it is first served on such a GPU")
    else:
        name = this_gpu(gpu)
        builder = find_builder(capability_of(name), say=say, log=log)
        building = f"Building it with {builder.library} {builder.version} for {name} ..."
        try:
            check = drift_check(spec, precision, demo_speech, device=f"cuda:{gpu}", say=say)
        except EngineError as error:
            say(f"It will not be compared with ONNX Runtime: {error}")
    folder = to or engines_folder(spec)
    with step(building):
        plan = build_plan(spec, prepared, folder, builder, name, precision, workspace_gib=workspace_gib, check=check)
    typer.echo(plan)


def _check_max_seconds(spec: ModelSpec, seconds: float) -> None:
    """Raises OptionsError for a length that `spec` does not take."""
    from moulin.engine.features import model_max_sec

    if spec.streaming:
        raise OptionsError(f"--max-seconds is for whole utterances, and {spec.name} is a streaming model")
    if not seconds > 0:
        raise OptionsError(f"Expected max-seconds above 0, got {seconds:g}")
    if seconds > (limit := model_max_sec(spec)):
        raise OptionsError(
            f"Expected max-seconds of at most {limit:.1f}, for which this model was exported, got {seconds:g}",
            hint="`moulin export` writes files without a limit from the checkpoint",
        )
