"""The page of `moulin bench leaderboard`."""

from __future__ import annotations

from moulin.evaluate.pages.blocks import Fact, Facts, Section, Table
from moulin.evaluate.results.leaderboard import LeaderboardFigures

METHOD = (
    "Every recording of a set once, the longest first, in batches; the clock runs within the calls, from waveforms in "
    "memory to texts, after the first batch has been run once. Rates are pooled over the words of a set; the mean is "
    "that of the sets' rates. Published rows are others' claims, on the machine that they name."
)


def leaderboard_sections(figures: LeaderboardFigures) -> list[Section]:
    facts = Facts(
        [
            Fact(f"{figures.mean_wer:.2%}", "mean WER", f"of {len(figures.sets)} sets"),
            Fact(f"{figures.rtfx:,.0f}×", "real time", "all sets together"),
        ]
    )
    rows = [
        (
            it.name,
            f"{it.rtfx:,.0f}",
            f"{it.wer.rate:.2%}",
            str(it.wer.errors),
            str(it.wer.reference),
            str(it.recordings),
        )
        for it in figures.sets
    ]
    published = [(it.name, f"{it.rtfx:,.0f}", f"{it.mean_wer:.2%}", it.conditions) for it in figures.published]
    return [
        Section("", [facts]),
        Section("Sets", [Table(("set", "RTFx", "WER", "errors", "words", "recordings"), rows)]),
        Section("Published by others", [Table(("row", "RTFx", "mean WER", "conditions"), published)]),
    ]
