"""`moulin bench accuracy`: word and character error rates, with the errors to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from moulin.cli.bars import bars, bars_are_shown
from moulin.cli.bench_options import AT_LEAST_1, ApiKeyOption, MeasuredModel, MeasuredOn, StartedWith, ToOption
from moulin.cli.bench_runs import finish
from moulin.cli.flags import ChangesOf, with_flags
from moulin.cli.hotwords import HOTWORDS
from moulin.cli.interrupt import STATUS
from moulin.cli.steps import step
from moulin.decoding.hotwords import as_json, given_hotwords
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.models.language_model_files import NO_FILES, LanguageModelFiles
from moulin.options import Bounds, check_options, option
from moulin.quoting import quoted

if TYPE_CHECKING:
    from moulin.evaluate.accuracy import Accuracy, Cut, Scored


@dataclass(frozen=True, slots=True)
class Hearing:
    """Targets that transcribe the recordings, and what is shown of their texts."""

    help_section: ClassVar[str] = "Targets"

    targets: str = option(
        "moulin,sherpa-onnx",
        "What to measure, separated by commas: moulin, moulin-triton-grpc, sherpa-onnx, rest=URL, …",
    )
    show: int = option(3, "Show so many recordings with the most errors, aligned.", bounds=Bounds(at_least=0))
    workers: int = option(16, "Recordings under way at once.", bounds=AT_LEAST_1)
    chunk_ms: int = option(320, "Audio sent at a time to a streaming model.", bounds=Bounds(at_least=10))
    streaming: bool = option(False, "Targets at an address take streams (where no --model says so).")

    def __post_init__(self) -> None:
        check_options(self)


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: moulin bench accuracy --model models/zipformer --data data/test --to report.html")(
        accuracy
    )


@with_flags
def accuracy(
    measured: MeasuredModel,
    on: MeasuredOn,
    hearing: Hearing,
    started: StartedWith,
    decoding: Annotated[dict[str, Any], ChangesOf(DecodingOptions, "the target's")],
    lm: LanguageModelFiles,
    api_key: ApiKeyOption = "",
    hotwords: Annotated[str | None, HOTWORDS] = None,
    hotwords_scores: Annotated[
        str, typer.Option(metavar="SCORES", help="The scores that --hotwords are tried with, with commas between.")
    ] = "0.5,1,1.5,2,2.5,3,3.5,4,4.5,5",
    to: ToOption = None,
) -> None:
    """Word and character error rates: every recording once, as fast as the target goes.

    With --hotwords once without and once with each score, and a table of what was found and invented.

    Recordings that fail are counted by themselves and are not in the rates; the exit status is then 1. Ctrl-C ends
    with what there is.
    """
    from moulin.evaluate.accuracy import Accuracy, measure_accuracy
    from moulin.evaluate.report_files import check_outputs
    from moulin.evaluate.results.accuracy import AccuracyFigures
    from moulin.evaluate.streaming_clips import read_clips, whole_clips
    from moulin.evaluate.targets.registry import target

    names = hearing.targets.split(",")
    rounds = _rounds(names, hotwords, hotwords_scores)
    if lm != NO_FILES and not all(name.startswith("moulin") and "=" not in name for name in names):
        raise OptionsError(
            f"Expected targets that are started with --lm, got {hearing.targets}", hint="say --targets moulin"
        )
    check_outputs(to or [])
    results: list[Accuracy] = []
    interrupted = False
    with measured.opened_for(names, None) as (spec, engine):
        streams = hearing.streaming or (spec is not None and spec.streaming is not None)
        starts = {name: target(name, "streams" if streams else "requests") for name in names}
        recordings = on.read()
        utterances = recordings.utterances
        sizes = spec.streaming if spec else None
        in_chunks = partial(read_clips, model=sizes, chunk_samples=hearing.chunk_ms * 16)
        cut: Cut = in_chunks if streams else whole_clips
        try:
            for (name, start), (label, changes) in product(starts.items(), rounds.items()):
                settings = replace(started.settings(engine, {**decoding, **changes}, api_key), lm=lm)
                shown = f"{name}{label}"
                with ExitStack() as stack:
                    with step(f"Starting {shown}"):
                        running = stack.enter_context(start(spec, settings))
                    on_scored = stack.enter_context(_progress(shown, len(utterances)))
                    results.append(Accuracy(shown))
                    normalize, workers = recordings.normalize, hearing.workers
                    measure_accuracy(
                        results[-1], running, utterances, cut, normalize, workers=workers, on_scored=on_scored
                    )
                _print(results[-1], 0 if hotwords else hearing.show)
            if hotwords is not None:
                _print_phrases(results, [one.phrase for one in given_hotwords(hotwords)])
        except KeyboardInterrupt:
            interrupted = True
            if results and results[-1].scored:
                heard = f"{len(results[-1].scored)} of {len(utterances)} recordings of {results[-1].target}"
                typer.echo(f"Interrupted after {heard}", err=True)
                _print(results[-1], hearing.show)
        if results:
            figures = AccuracyFigures(
                kind="accuracy",
                accuracy=[result.figures() for result in results],
                data=recordings.data,
                normalizer=recordings.normalize.description,
                decoding={**decoding, **{name: file.name for name, file in (("lm", lm.lm), ("lodr", lm.lodr)) if file}},
                interrupted=interrupted,
            )
            finish(spec, figures, to, _lines(results))
    if interrupted:
        raise typer.Exit(STATUS)
    if any(result.failed for result in results):
        raise typer.Exit(1)


def _rounds(targets: Sequence[str], hotwords: str | None, scores: str) -> dict[str, dict[str, Any]]:
    """Decoding options of each run of a target, by what is added to its name. Raises OptionsError."""
    if hotwords is None:
        return {"": {}}
    if any("sherpa" in name for name in targets):
        raise OptionsError(
            f"Expected targets that take hotwords, got {','.join(targets)}", hint="say --targets moulin, or rest=URL"
        )
    try:
        tried = [float(score) for score in scores.split(",")]
    except ValueError:
        raise OptionsError(f"Expected scores with commas between, as 0.5,1.5, got {quoted(scores)}") from None
    words = as_json(given_hotwords(hotwords))
    with_each = {f" hotwords {score:g}": {"hotwords": words, "hotwords_score": score} for score in tried}
    for changes in with_each.values():
        DecodingOptions().updated(changes)
    return {"": {"method": "modified_beam_search"}, **with_each}


def _print_phrases(results: Sequence[Accuracy], phrases: Sequence[str]) -> None:
    from moulin.evaluate.phrase_counts import PhraseCounts

    width = max(len(result.target) for result in results)
    typer.echo(f"\n{'':{width}}  phrases said   found  recall  invented     WER")
    for result in results:
        each = (PhraseCounts.of(it.said, it.heard, phrases, str.upper) for it in result.answered)
        counts = sum(each, PhraseCounts())
        recall = "none" if counts.recall is None else f"{counts.recall:.1%}"
        typer.echo(
            f"{result.target:{width}}  {counts.said:12}  {counts.found:6}  {recall:>6}  {counts.invented:8}  "
            f"{result.words.rate:6.2%}"
        )


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
    """A progress bar with the error rate so far, on a terminal."""
    if not bars_are_shown():
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    errors = words = 0
    with bars(*columns) as progress:
        task = progress.add_task(name, total=total)

        def advance(scored: Scored) -> None:
            nonlocal errors, words
            errors, words = errors + scored.words.errors, words + scored.words.words
            progress.update(task, advance=1, description=f"{name}  WER {errors / max(1, words):.2%}")

        yield advance
