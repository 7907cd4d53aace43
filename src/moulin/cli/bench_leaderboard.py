"""`moulin bench leaderboard`: the Open ASR Leaderboard's sets by its protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from moulin.cli.bench_options import AT_LEAST_1, MeasuredModel, StartedWith, ToOption
from moulin.cli.bench_runs import finish
from moulin.cli.flags import ChangesOf, with_flags
from moulin.cli.interrupt import STATUS
from moulin.decoding.options import DecodingOptions
from moulin.options import check_options, option

if TYPE_CHECKING:
    from moulin.evaluate.results.leaderboard import LeaderboardFigures, SetFigures


@dataclass(frozen=True, slots=True)
class LeaderboardRun:
    """Options of the sets and the way through them."""

    help_section: ClassVar[str] = "Runs"

    dataset: str = option(
        "hf-audio/open-asr-leaderboard", "The data set: on the Hugging Face hub, or a folder in the same form."
    )
    sets: str | None = option(
        None,
        "Its sets, CONFIG or CONFIG:SPLIT separated by commas.",
        usual="the seven English ones of its first table, Earnings22 as a whole",
    )
    batch_size: int = option(256, "Recordings in a call.", bounds=AT_LEAST_1)
    target: str = option("moulin", "What to measure; a wrong name lists them.")
    normalizer_from: Path | None = option(
        None,
        "A clone of huggingface/open_asr_leaderboard, whose own code normalises the texts.",
        usual="whisper-normalizer with its rules",
    )

    def __post_init__(self) -> None:
        check_options(self)


def add_to(app: typer.Typer) -> None:
    example = "moulin bench leaderboard --model model.pt --device cuda --sets librispeech:test.clean"
    app.command(epilog=f"Example: {example}")(leaderboard)


@with_flags
def leaderboard(
    measured: MeasuredModel,
    run: LeaderboardRun,
    started: StartedWith,
    decoding: Annotated[dict[str, Any], ChangesOf(DecodingOptions, "the target's")],
    to: ToOption = None,
) -> None:
    """RTFx and word error rate of the Open ASR Leaderboard's sets: sorted batches, one pass, its normalisation.

    Needs pip install '.[leaderboard]', a network for the sets (or a folder), and hours of CPU without a GPU. Ctrl-C
    ends with the sets that are done.
    """
    from moulin.evaluate.leaderboard import PUBLISHED, measure_set
    from moulin.evaluate.leaderboard_normalizer import leaderboard_normalizer
    from moulin.evaluate.leaderboard_sets import load_rows, parse_sets
    from moulin.evaluate.report_files import check_outputs
    from moulin.evaluate.results.leaderboard import LeaderboardFigures
    from moulin.evaluate.targets.registry import at_once

    check_outputs(to or [])
    names = parse_sets(run.sets)
    start = at_once(run.target)
    normalize = leaderboard_normalizer(run.normalizer_from)
    results: list[SetFigures] = []
    interrupted = False
    with measured.opened("offline") as (spec, engine):
        settings = started.settings(engine, decoding, "")
        try:
            with start(spec, settings) as transcribe:
                for name in names:
                    rows = load_rows(run.dataset, name)
                    typer.echo(f"{name}: {len(rows)} recordings …", err=True)
                    results.append(measure_set(transcribe, rows, name, normalize, batch_size=run.batch_size))
                    _print(results[-1])
        except KeyboardInterrupt:
            interrupted = True
        if results:
            figures = LeaderboardFigures(
                kind="leaderboard",
                sets=results,
                published=PUBLISHED,
                normalizer=normalize.description,
                decoding=decoding,
                dataset=run.dataset,
                batch_size=run.batch_size,
                device=settings.engine.device,
                interrupted=interrupted,
            )
            _print_summary(figures)
            finish(spec, figures, to)
    if interrupted:
        raise typer.Exit(STATUS)


def _print(it: SetFigures) -> None:
    typer.echo(
        f"{it.name:28} RTFx {it.rtfx:10,.1f}  WER {it.wer.rate:7.2%}  ({it.wer.errors} errors in {it.wer.reference} "
        f"words, {it.recordings} recordings)"
    )


def _print_summary(figures: LeaderboardFigures) -> None:
    typer.echo(f"{'all':28} RTFx {figures.rtfx:10,.1f}  WER {figures.mean_wer:7.2%}  (mean of the sets)")
    typer.echo(f"\nTexts compared as: {figures.normalizer}\nPublished by others:")
    for row in figures.published:
        typer.echo(f"  {row.name}: RTFx {row.rtfx:,.0f}, WER {row.mean_wer:.2%} ({row.conditions})")
