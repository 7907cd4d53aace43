"""`moulin bench encoder`: latency and throughput of encoders, runners side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

import typer

from moulin.cli.bench_options import AT_LEAST_1, positive_numbers
from moulin.cli.bench_runs import finish
from moulin.cli.flags import only, with_flags
from moulin.cli.interrupt import STATUS
from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.options import Bounds, check_options, option

if TYPE_CHECKING:
    from moulin.bundle.files import Precision
    from moulin.bundle.spec import ModelSpec, OnnxModelSpec
    from moulin.evaluate.encoder_benchmark import Latencies
    from moulin.evaluate.encoder_runners import Kind, MeasuredEncoder
    from moulin.models.engine_choice import Engine


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """Options of the encoders that are measured, and of their batches."""

    help_section: ClassVar[str] = "Runs"

    model: Path | None = option(None, "The folder of an offline model.", usual="the demo model")
    size: str | None = option(None, "A model of a published size with random weights instead, e.g. conformer-77m.")
    runners: str | None = option(
        None,
        "What to measure, separated by commas: onnxruntime, onnxruntime-exported (the file as it is, without "
        "our rewriting), openvino, torch, torch-compiled, tensorrt, gpu (ours, for checkpoints); in another precision "
        "as onnxruntime:fp16.",
        usual="the model's engine",
    )
    on_device: bool = option(False, "Features and encoder frames stay on the device; no copies in the clock.")
    batches: str = option("1,8,16,32,64,128", "Utterances in a call, separated by commas.")
    frames: int = option(663, "Length of every utterance, in features of 10 ms.", bounds=Bounds(at_least=9))
    rounds: int = option(3, "Rounds through all runners, for each number of utterances.", bounds=AT_LEAST_1)
    cpu_time: bool = option(False, "The CPU's time instead of the clock's, on a machine that others use too.")
    choose: bool = option(
        False,
        "Keep the fastest way to run --model on this CPU for --engine auto, by the CPU time of one utterance a call.",
    )
    seconds: float = option(1.0, "Length of a runner's turn in a round.", bounds=Bounds(at_least=0))

    def __post_init__(self) -> None:
        check_options(self)
        if self.model is not None and self.size is not None:
            raise OptionsError("Expected --model or --size, got both")
        if self.choose and (self.model is None or self.runners is not None or self.on_device):
            raise OptionsError(
                "Expected --choose with --model, and without --runners and --on-device",
                hint="what is chosen for a model is kept by its contents",
            )


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Example: moulin bench encoder --size conformer-77m --runners onnxruntime,onnxruntime:fp16,gpu "
        "--device cuda --on-device"
    )(encoder)


@with_flags
def encoder(
    options: EncoderOptions,
    engine: Annotated[EngineChoice, only("device", "threads")],
    to: Annotated[Path | None, typer.Option(help="Write the raw figures into this JSON file.")] = None,
) -> None:
    """Latency of the encoder alone and utterances a second (QPS), by how many go through it together.

    The clock runs from features in the host's memory to encoder frames there. The runners take turns. Ctrl-C ends with
    what there is.
    """
    from moulin.evaluate.encoder_benchmark import benchmark_encoders
    from moulin.evaluate.report_files import check_outputs
    from moulin.evaluate.results.encoder import EncoderFigures
    from moulin.evaluate.targets.target import ServerSettings

    check_outputs([to] if to else [])
    choosing = options.choose
    if choosing:
        options = _to_choose(options, engine)
    counts = positive_numbers(options.batches, "--batches", "utterances")
    with _opened(options, engine, max(counts)) as (spec, opened):
        names = list(opened)
        typer.echo(_line("batch", [f"{name} ms" for name in names], ["QPS"] * len(names)))
        measured: list[Latencies] = []
        batches = benchmark_encoders(
            opened,
            counts,
            num_frames=options.frames,
            feature_dim=spec.feature_dim,
            rounds=options.rounds,
            seconds=options.seconds,
            clock=time.process_time if options.cpu_time else time.perf_counter,
        )
        interrupted = False
        try:
            for found in batches:
                measured += found
                typer.echo(_row(found))
        except KeyboardInterrupt:
            interrupted = True
        for latencies in measured:
            if latencies.failure is not None:
                typer.echo(f"{latencies.runner} failed with {latencies.batch}: {latencies.failure}", err=True)
        if measured:
            figures = EncoderFigures(
                runs=[latencies.figures() for latencies in measured],
                threads=ServerSettings(engine).threads,
                device=engine.device,
                frames=options.frames,
                on_device=options.on_device,
                cpu_time=options.cpu_time,
                rounds=options.rounds,
                interrupted=interrupted,
            )
            finish(spec, figures, [to] if to else None)
        if choosing and not interrupted:
            _keep_fastest(spec, measured)
    if interrupted:
        raise typer.Exit(STATUS)


def _to_choose(options: EncoderOptions, engine: EngineChoice) -> EncoderOptions:
    """`options` with all ways that there are to run the model on this CPU."""
    from moulin.cli.runnable_model import runnable_model
    from moulin.models.auto_engine import ways
    from moulin.models.load_for_engine import load_for_engine

    if engine.gpu is not None:
        raise OptionsError(f"Expected --choose on the CPU, got --device {engine.device}", hint="leave it out")
    assert options.model is not None
    usual = EngineChoice("onnxruntime")
    spec, _ = load_for_engine(runnable_model(options.model, usual, streaming=False), usual, "offline")
    runners = [f"{way.engine}:{way.precision}" for way in ways(_of_files(spec))]
    return replace(options, choose=False, runners=",".join(runners), batches="1", cpu_time=True)


def _keep_fastest(spec: ModelSpec, measured: Sequence[Latencies]) -> None:
    from moulin.models.auto_engine import best_of
    from moulin.models.kept_way import Way, keep
    from moulin.processor import this_processor

    found: dict[Way, float] = {}
    for latencies in measured:
        if latencies.failure is None:
            kind, precision = _parsed(latencies.runner)
            found[Way(cast("Engine", kind), cast("Precision", precision))] = latencies.median_ms
    best = best_of(found)
    cpu_ms = {str(way): round(milliseconds, 3) for way, milliseconds in found.items()}
    file = keep(_of_files(spec), best, {"cpu_ms": cpu_ms}, this_processor())
    typer.echo(f"--engine auto runs {spec.name} on {best} from now on: {file}", err=True)


def _of_files(spec: ModelSpec) -> OnnxModelSpec:
    from moulin.bundle.spec import OnnxModelSpec

    if not isinstance(spec, OnnxModelSpec):
        raise OptionsError(f"Expected a transducer's ONNX files to choose for, got {spec.file}")
    return spec


@contextmanager
def _opened(
    options: EncoderOptions, engine: EngineChoice, max_batch: int
) -> Iterator[tuple[ModelSpec, dict[str, MeasuredEncoder]]]:
    """The runners by their names in the table, and the model that the first of them runs; `max_batch` is the most
    utterances in a call."""
    from moulin.bundle.load_model import load_model
    from moulin.cli.runnable_model import runnable_model
    from moulin.demo.files import DEMO_MODEL
    from moulin.evaluate.encoder_runners import CHECKPOINT_KINDS, open_encoder
    from moulin.launch.workspace import workspace

    parsed = [_parsed(runner) for runner in (options.runners.split(",") if options.runners else [""])]
    with workspace("encoder-benchmark") as folder:
        if options.size is not None:
            from moulin.bundle.checkpoint_files import require_torch

            require_torch()
            from moulin.evaluate.published_sizes import write_random_model

            of_files = {precision for kind, precision in parsed if kind not in CHECKPOINT_KINDS}
            typer.echo(f"Writing a model of the size {options.size} …", err=True)
            folder = folder / options.size
            folder.mkdir()
            write_random_model(
                options.size,
                folder,
                onnx=any(kind not in CHECKPOINT_KINDS for kind, _ in parsed),
                fp16="fp16" in of_files,
                int8="int8" in of_files,
            )
        opened: dict[str, MeasuredEncoder] = {}
        specs = []
        for kind, precision in parsed:
            usual = "torch" if kind == "torch-compiled" or kind == "gpu" else kind
            usual = "onnxruntime" if usual == "onnxruntime-exported" else usual
            choice = EngineChoice(usual, engine.device, precision=precision)
            found = (
                folder
                if options.size is not None
                else runnable_model(options.model or DEMO_MODEL, choice, streaming=False)
            )
            spec = load_model(
                found,
                precision=choice.file_precision,
                expect="offline",
                prefer_checkpoint=kind in CHECKPOINT_KINDS,
            )
            chosen, opening = open_encoder(
                spec,
                kind,
                device=engine.device,
                threads=engine.threads,
                on_device=options.on_device,
                precision=precision,
                max_batch=max_batch,
                num_frames=options.frames,
            )
            opened[f"{chosen}:{precision}" if precision else chosen] = opening
            specs.append(spec)
        yield specs[0], opened


def _parsed(runner: str) -> tuple[Kind | None, Precision | None]:
    """The runner and the precision in RUNNER:PRECISION, of which either may be missing."""
    from moulin.bundle.files import PRECISIONS
    from moulin.evaluate.encoder_runners import KINDS

    kind, _, precision = runner.partition(":")
    if kind not in ("", *KINDS) or precision not in ("", *PRECISIONS):
        raise OptionsError(
            f"Expected a runner as NAME or NAME:PRECISION, got {runner!r}",
            hint=f"names are {', '.join(KINDS)}, precisions {', '.join(PRECISIONS)}",
        )
    return cast("Kind", kind) if kind else None, cast("Precision", precision) if precision else None


def _row(found: Sequence[Latencies]) -> str:
    latencies = ["failed" if one.failure is not None else f"{one.median_ms:.2f}" for one in found]
    rates = ["-" if one.failure is not None else f"{one.qps:.1f}" for one in found]
    return _line(str(found[0].batch), latencies, rates)


def _line(batch: str, latencies: Sequence[str], rates: Sequence[str]) -> str:
    return f"{batch:>5}" + "".join(f"{ms:>24}{qps:>10}" for ms, qps in zip(latencies, rates, strict=True))
