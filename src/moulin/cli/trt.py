"""`moulin trt`: TensorRT engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from moulin.cli.verbs import Verbs
from moulin.errors import BundleError, EngineError, OptionsError
from moulin.launch.tensorrt_libraries import ARCHITECTURES, Architecture

app = typer.Typer(
    help="Build TensorRT engines.",
    epilog="Example: moulin trt build models/zipformer --to engines --max-batch 64",
    no_args_is_help=True,
    cls=Verbs,
    rich_markup_mode=None,
)


@app.callback()
def _trt() -> None:
    pass


@app.command(epilog="Example: moulin trt build models/zipformer --to engines --dry-run")
def build(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A folder with fp32 ONNX files and tokens.txt.")],
    to: Annotated[
        Path | None,
        typer.Option(help="The folder to write the engine into.  [default: the cache, where --engine tensorrt looks]"),
    ] = None,
    precision: Annotated[Literal["fp16", "bf16", "fp32"], typer.Option(help="What the engine computes with.")] = "fp16",
    max_batch: Annotated[int, typer.Option(help="Most utterances, or streams, that go through it together.")] = 64,
    max_seconds: Annotated[
        float | None, typer.Option(help="Longest utterance.  [default: what the model takes, at most 120]")
    ] = None,
    workspace_gib: Annotated[float, typer.Option(help="GPU memory that TensorRT may take for trying.")] = 4.0,
    architecture: Annotated[
        Architecture | None,
        typer.Option(
            "--for",
            help="Build with TensorRT-RTX for all GPUs of this architecture; needs no GPU here.  "
            "[default: for this machine's GPU]",
        ),
    ] = None,
    gpu: Annotated[int, typer.Option(min=0, help="The GPU to build for, by number.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the model, and print what trtexec would be told.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the library's own log.")] = False,
) -> None:
    """Build the TensorRT engine of a model's encoder, for this GPU, and hold it against ONNX Runtime on speech.

    With --for it is built for other machines' GPUs, and held against ONNX Runtime where it is first served.
    An engine that is there already, built from the same files with the same settings, is kept; one that gives NaN, or
    differs by more than its precision explains, is not.
    """
    from moulin.bundle.choice import Wish
    from moulin.bundle.load_model import load_model
    from moulin.bundle.spec import OnnxModelSpec
    from moulin.cli.any_length import of_any_length
    from moulin.cli.fetch import local_model
    from moulin.demo.files import demo_speech
    from moulin.tensorrt_engine.build import build_plan, prepare, this_gpu
    from moulin.tensorrt_engine.builders import BuildRequest, builder_ahead, find_builder, trtexec_arguments
    from moulin.tensorrt_engine.plan_file import capability_of
    from moulin.tensorrt_engine.ready_plan import drift_check, engines_folder

    if not workspace_gib > 0:
        raise OptionsError(f"Expected workspace-gib above 0, got {workspace_gib:g}")
    try:
        found = local_model(model, Wish(precision="fp32", form="onnx")).path
    except BundleError:
        found = model  # the checks below raise the error
    spec = load_model(found)
    if unlimited := of_any_length(spec):
        spec = load_model(unlimited)
    prepared = prepare(spec, precision=precision, max_batch=max_batch, max_seconds=max_seconds)
    nodes = len(prepared.model.graph.node)
    typer.echo(f"TensorRT takes the encoder of {spec.name}: {nodes} operators, {precision}", err=True)
    if dry_run:
        request = BuildRequest(Path("encoder.onnx"), Path("encoder.plan"), prepared.profiles, workspace_gib)
        typer.echo(" \\\n  ".join(["trtexec", *trtexec_arguments(request)]))
        return
    assert isinstance(spec, OnnxModelSpec)
    name: str | None = None
    check: Callable[[Path], float] | None = None
    if architecture is not None:
        capabilities = ARCHITECTURES[architecture]
        builder = builder_ahead(capabilities[0], say=_say, log=_say if verbose else None)
        _say(
            f"Building it with {builder.library} {builder.version} for {architecture}, "
            f"compute capability {', '.join(builder.capabilities)} ..."
        )
        _say("It will be compared with ONNX Runtime when it is first served on such a GPU")
    else:
        name = this_gpu(gpu)
        builder = find_builder(capability_of(name), say=_say, log=_say if verbose else None)
        _say(f"Building it with {builder.library} {builder.version} for {name} ...")
        try:
            check = drift_check(spec, precision, demo_speech, device=f"cuda:{gpu}", say=_say)
        except EngineError as error:
            _say(f"It will not be compared with ONNX Runtime: {error}")
    plan = build_plan(
        spec, prepared, to or engines_folder(spec), builder, name, precision, workspace_gib=workspace_gib, check=check
    )
    typer.echo(plan)


def _say(text: str) -> None:
    typer.echo(text, err=True)
