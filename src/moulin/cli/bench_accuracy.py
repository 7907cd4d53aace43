"""`moulin bench accuracy`: word and character error rates, with the errors to look at."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moulin.cli.arguments import BeamOption, DeviceOption, EngineOption, MethodOption, PrecisionOption, decoding_changes
from moulin.cli.bench_options import (
    AlikeOption,
    ApiKeyOption,
    DataOption,
    NormalizerOption,
    SherpaOption,
    TextOption,
    ThreadsOption,
    ToOption,
    all_cpus,
    load_measured_model,
    read_recordings,
    sherpa_settings,
)

if TYPE_CHECKING:
    from moulin.evaluate.accuracy import Accuracy, Cut, Scored
    from moulin.evaluate.targets.target import Start


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: moulin bench accuracy --model models/zipformer --data data/test --to report.html")(
        accuracy
    )


def accuracy(
    model: Annotated[
        Path | None, typer.Option(help="The model's folder, offline or streaming.  [default: the demo model]")
    ] = None,
    data: DataOption = None,
    text: TextOption = None,
    targets: Annotated[
        str,
        typer.Option(help="What to measure, separated by commas: moulin, moulin-triton-grpc, sherpa-onnx, rest=URL, …"),
    ] = "moulin,sherpa-onnx",
    method: MethodOption = None,
    beam: BeamOption = None,
    normalizer: NormalizerOption = "basic",
    alike: AlikeOption = None,
    show: Annotated[int, typer.Option(min=0, help="Show so many recordings with the most errors, aligned.")] = 3,
    workers: Annotated[int, typer.Option(min=1, help="Recordings under way at once.")] = 16,
    chunk_ms: Annotated[int, typer.Option(min=10, help="Audio sent at a time to a streaming model.")] = 320,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Targets at an address take streams (where no --model says so).")
    ] = False,
    threads: ThreadsOption = None,
    engine: EngineOption = None,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = None,
    sherpa_options: SherpaOption = "",
    api_key: ApiKeyOption = "",
    to: ToOption = None,
) -> None:
    """Word and character error rates: every recording once, as fast as the target goes.

    Recordings that fail are counted by themselves and are not in the rates; the exit status is then 1. Ctrl-C ends
    with what there is.
    """
    from moulin.demo.files import DEMO_MODEL
    from moulin.evaluate.accuracy import Accuracy, measure_accuracy
    from moulin.evaluate.report import check_outputs, make_report, write
    from moulin.evaluate.results.accuracy import AccuracyFigures
    from moulin.evaluate.streaming_clips import read_clips, whole_clips
    from moulin.evaluate.targets.registry import target
    from moulin.evaluate.targets.target import ServerSettings

    names = targets.split(",")
    check_outputs(to or [])
    at_addresses = all("=" in name for name in names)
    spec = (
        None
        if at_addresses and model is None
        else load_measured_model(model or DEMO_MODEL, precision, engine, device, None)
    )
    streams = streaming or (spec is not None and spec.streaming is not None)
    starts: dict[str, Start] = {name: target(name, "streams" if streams else "requests") for name in names}
    changes = decoding_changes(method, beam)
    settings = ServerSettings(all_cpus(threads), device, engine, sherpa_settings(sherpa_options), changes, api_key)
    recordings = read_recordings(data, text, normalizer, alike)
    utterances = recordings.utterances

    sizes = spec.streaming if spec else None
    cut: Cut = partial(read_clips, model=sizes, chunk_samples=chunk_ms * 16) if streams else whole_clips
    results: list[Accuracy] = []
    interrupted = False
    try:
        for name, start in starts.items():
            with start(spec, settings) as running, _progress(name, len(utterances)) as on_scored:
                results.append(Accuracy(name))
                measure_accuracy(
                    results[-1],
                    running,
                    recordings.utterances,
                    cut,
                    recordings.normalize,
                    workers=workers,
                    on_scored=on_scored,
                )
            _print(results[-1], show)
    except KeyboardInterrupt:
        interrupted = True
        if results and results[-1].scored:
            typer.echo(
                f"Interrupted after {len(results[-1].scored)} of {len(utterances)} recordings of {results[-1].target}",
                err=True,
            )
            _print(results[-1], show)
    if to and results:
        figures = AccuracyFigures(
            kind="accuracy",
            accuracy=[result.figures() for result in results],
            data=recordings.data,
            normalizer=recordings.normalize.description,
            decoding=changes,
            interrupted=interrupted,
        )
        write(make_report(sys.argv[1:], spec, figures), to, _lines(results))
    if interrupted:
        raise typer.Exit(130)
    if any(result.failed for result in results):
        raise typer.Exit(1)


def _lines(results: Sequence[Accuracy]) -> Iterator[dict[str, object]]:
    from moulin.evaluate.results.fields import to_json

    for result in results:
        for scored in result.scored:
            pairs = scored.alignment() if scored.failure is None else None
            yield {"target": result.target, **to_json(scored.figures()), "alignment": pairs}


def _print(result: Accuracy, show: int) -> None:
    from moulin.evaluate.wer import alignment_view

    words, characters = result.words, result.characters
    failed = f", {len(result.failed)} FAILED (not in the rates)" if result.failed else ""
    typer.echo(
        f"{result.target}: WER {words.rate:.2%} ({words.errors} errors in {words.words} words: "
        f"{words.insertions} ins, {words.deletions} del, {words.substitutions} sub), CER {characters.rate:.2%}, "
        f"{result.sentence_errors} of {len(result.answered)} recordings with errors{failed}"
    )
    worst = sorted((it for it in result.answered if it.words.errors), key=lambda it: it.words.errors, reverse=True)
    for it in worst[:show]:
        typer.echo(f"\n  {it.id}: {it.words.errors} errors in {it.words.words} words")
        for line in alignment_view(it.alignment()).splitlines():
            typer.echo(f"    {line}")
    if worst[:show]:
        typer.echo()
    for it in result.failed[:show]:
        typer.echo(f"  {it.id}: {it.failure}", err=True)


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[Scored], None]]:
    """A bar with the rate so far, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    errors = words = 0
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=total)

        def advance(scored: Scored) -> None:
            nonlocal errors, words
            errors, words = errors + scored.words.errors, words + scored.words.words
            progress.update(task, advance=1, description=f"{name}  WER {errors / max(1, words):.2%}")

        yield advance
