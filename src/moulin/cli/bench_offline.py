"""`moulin bench offline`: throughput of whole recordings, and the latency of requests under a load."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moulin.cli.arguments import BeamOption, DeviceOption, EngineOption, MethodOption, PrecisionOption, decoding_changes
from moulin.cli.bench_options import (
    AlikeOption,
    ApiKeyOption,
    DataOption,
    NormalizerOption,
    Recordings,
    SherpaOption,
    TextOption,
    ThreadsOption,
    ToOption,
    TriesOption,
    all_cpus,
    load_measured_model,
    positive_numbers,
    read_recordings,
    sherpa_settings,
)
from moulin.errors import OptionsError

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec
    from moulin.evaluate.offline_benchmark import TargetResult
    from moulin.evaluate.request_load import Arrivals, Workers
    from moulin.evaluate.results.loads import LoadFigures
    from moulin.evaluate.results.offline import OfflineFigures
    from moulin.evaluate.run import Run
    from moulin.evaluate.targets.target import ServerSettings

_BATCH_TARGETS = "moulin,moulin-triton,sherpa-onnx-batch1,sherpa-onnx-batch4,sherpa-onnx-batch16,sherpa-onnx-threads"
_REQUEST_TARGETS = "moulin-triton-grpc,sherpa-onnx"


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: moulin bench offline --model models/zipformer --data test/ --workers 1,8,64")(offline)


def offline(
    model: Annotated[Path | None, typer.Option(help="The model's folder.  [default: the demo model]")] = None,
    data: DataOption = None,
    text: TextOption = None,
    targets: Annotated[
        str | None, typer.Option(help="What to measure, separated by commas; a wrong name lists them.")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Rounds through all targets.  [default: 5; 1 with --workers or --rate]"),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="How often each recording occurs in a round.")] = 1,
    workers: Annotated[
        str | None, typer.Option(metavar="N,…", help="A closed loop of requests instead: so many under way at once.")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="R,…", help="An open loop instead: so many requests a second, at random times."),
    ] = None,
    evenly: Annotated[
        bool, typer.Option("--evenly", help="With --rate: at even distances, not as a Poisson process.")
    ] = False,
    find_max: Annotated[
        bool, typer.Option("--find-max", help="With --rate: search the highest rate that holds --p95-ms.")
    ] = False,
    p95_ms: Annotated[float, typer.Option(min=1, help="The latency to hold, 95th percentile.")] = 1000.0,
    seconds: Annotated[float, typer.Option(min=1, help="Length of each run of --workers or --rate.")] = 20.0,
    method: MethodOption = None,
    beam: BeamOption = None,
    normalizer: NormalizerOption = "basic",
    alike: AlikeOption = None,
    threads: ThreadsOption = None,
    engine: EngineOption = None,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = None,
    tries: TriesOption = 3,
    sherpa_options: SherpaOption = "",
    api_key: ApiKeyOption = "",
    to: ToOption = None,
) -> None:
    """Throughput (RTFx: audio seconds a second) and word error rate of whole recordings.

    All recordings at once, round after round, or with --workers or --rate a request each, with its latency. Ctrl-C ends
    with what there is.
    """
    from moulin.demo.files import DEMO_MODEL
    from moulin.evaluate.report import check_outputs, make_report, write
    from moulin.evaluate.targets.target import ServerSettings

    check_outputs(to or [])
    if workers and rate:
        raise OptionsError("Expected --workers or --rate, got both", hint="a closed loop or an open one")
    if (find_max or evenly) and not rate:
        raise OptionsError(
            f"Expected --rate with {'--find-max' if find_max else '--evenly'}", hint="for example --rate 4 --find-max"
        )
    requests = bool(workers or rate)
    names = (targets or (_REQUEST_TARGETS if requests else _BATCH_TARGETS)).split(",")
    settings = ServerSettings(
        all_cpus(threads), device, engine, sherpa_settings(sherpa_options), decoding_changes(method, beam), api_key
    )
    at_addresses = requests and all("=" in name for name in names)
    spec = (
        None
        if at_addresses and model is None
        else load_measured_model(model or DEMO_MODEL, precision, engine, device, "offline")
    )
    recordings = read_recordings(data, text, normalizer, alike)
    figures: OfflineFigures | LoadFigures | None
    if requests:
        shapes = _shapes(workers, rate, evenly=evenly)
        wanted = _Runs(shapes, seconds, rounds or 1, tries, p95_ms if find_max else None)
        figures, lines = _requests(names, spec, settings, recordings, wanted)
    else:
        assert spec is not None
        figures, lines = _batches(names, spec, settings, recordings, rounds or 5, repeat), []
    if to and figures:
        write(make_report(sys.argv[1:], spec, figures), to, lines)
    if figures is None or figures.interrupted:
        raise typer.Exit(130)


def _batches(
    names: Sequence[str],
    spec: ModelSpec,
    settings: ServerSettings,
    recordings: Recordings,
    rounds: int,
    repeat: int,
) -> OfflineFigures | None:
    """All recordings at once, as far as it came."""
    from moulin.evaluate.offline_benchmark import benchmark_offline
    from moulin.evaluate.results.offline import OfflineFigures

    results: list[TargetResult] = []

    def on_round(number: int, so_far: list[TargetResult]) -> None:
        results[:] = so_far
        typer.echo(f"round {number} of {rounds}", err=True)

    interrupted = False
    try:
        benchmark_offline(
            spec,
            recordings.utterances,
            names,
            settings,
            rounds=rounds,
            repeat=repeat,
            normalize=recordings.normalize,
            on_round=on_round,
        )
    except KeyboardInterrupt:
        interrupted = True
    for result in results:
        low, high = (result.audio_sec / seconds for seconds in (max(result.seconds), min(result.seconds)))
        typer.echo(
            f"{result.name:20}  RTFx {result.rtfx:7.1f}  ({low:.1f} to {high:.1f})  WER {result.word_errors.rate:.2%}"
        )
    if not results:
        return None
    return OfflineFigures(
        kind="offline",
        audio_sec=round(results[0].audio_sec, 2),
        targets=[result.figures() for result in results],
        data=recordings.data,
        normalizer=recordings.normalize.description,
        decoding=dict(settings.decoding),
        threads=settings.threads,
        device=settings.device,
        repeat=repeat,
        interrupted=interrupted,
    )


@dataclass(frozen=True, slots=True)
class _Runs:
    """Which runs are wanted; `p95_limit_ms` of a search for the highest rate."""

    shapes: Sequence[Workers | Arrivals]
    seconds: float
    rounds: int
    tries: int
    p95_limit_ms: float | None


def _requests(
    names: Sequence[str],
    spec: ModelSpec | None,
    settings: ServerSettings,
    recordings: Recordings,
    wanted: _Runs,
) -> tuple[LoadFigures | None, list[dict[str, Any]]]:
    """A request each: figures as far as it came, and a line for every request."""
    from moulin.cli.bench_runs import HEADER, row, run_all
    from moulin.evaluate.largest_load import find_largest, largest_that_held
    from moulin.evaluate.request_benchmark import requests_plan
    from moulin.evaluate.request_load import WARMUP_SEC, Arrivals
    from moulin.evaluate.results.loads import LoadFigures
    from moulin.evaluate.run import measure_plan
    from moulin.evaluate.streaming_clips import whole_clips
    from moulin.evaluate.targets.registry import target

    starts = {name: target(name, "requests") for name in names}
    limit_ms = wanted.p95_limit_ms
    searching = limit_ms is not None
    clips = whole_clips(recordings.utterances)

    def run(name: str, shape: Workers | Arrivals, seed: int) -> Run:
        load = f"{shape.per_sec:g} requests a second" if isinstance(shape, Arrivals) else f"{shape.count} workers"
        typer.echo(f"{name}, {load} …", err=True)
        plan = requests_plan(clips, shape, seconds=wanted.seconds, seed=seed)
        tries = 1 if searching else wanted.tries
        return measure_plan(name, starts[name], spec, settings, plan, recordings.normalize, tries=tries)

    typer.echo(HEADER, err=searching)
    if limit_ms is not None:
        first = wanted.shapes[0]
        assert isinstance(first, Arrivals)

        def at_rate(name: str, tenths: int, seed: int) -> Run:
            return run(name, Arrivals(tenths / _STEPS, first.poisson), seed)

        planned = find_largest(names, at_rate, p95_ms=limit_ms, start=max(1, round(first.per_sec * _STEPS)))
    else:
        planned = (run(name, shape, seed) for seed in range(wanted.rounds) for shape in wanted.shapes for name in names)
    runs, interrupted = run_all(planned, lambda done: typer.echo(row(done.measurement), err=searching))
    largest = largest_that_held([done.measurement for done in runs], limit_ms) if limit_ms is not None else None
    for name, most in (largest or {}).items():
        typer.echo(f"{name:20} {most:g} requests a second with a p95 latency under {limit_ms:g} ms")
    if not runs:
        return None, []
    figures = LoadFigures(
        kind="requests",
        runs=[done.measurement.figures(brief=searching) for done in runs],
        data=recordings.data,
        normalizer=recordings.normalize.description,
        decoding=dict(settings.decoding),
        threads=settings.threads,
        device=settings.device,
        warmup_sec=WARMUP_SEC,
        p95_limit_ms=limit_ms,
        seconds=wanted.seconds,
        servers={name: settings.described(name) for name in names},
        interrupted=interrupted,
        largest=largest,
    )
    return figures, [line for done in runs for line in done.lines()]


_STEPS = 10
"""Rates are searched in tenths of a request a second."""


def _shapes(workers: str | None, rate: str | None, *, evenly: bool) -> Sequence[Workers | Arrivals]:
    from moulin.evaluate.request_load import Arrivals, Workers

    if workers:
        return [Workers(count) for count in positive_numbers(workers, "--workers", "workers")]
    try:
        return [Arrivals(float(part), poisson=not evenly) for part in (rate or "").split(",")]
    except ValueError:
        raise OptionsError(f"Expected requests a second separated by commas for --rate, got {rate!r}") from None
