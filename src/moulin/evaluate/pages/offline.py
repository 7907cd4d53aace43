"""The page of `moulin bench offline` with all recordings at once."""

from __future__ import annotations

from moulin.evaluate.pages.blocks import Fact, Facts, Plot, Plots, Section, Table
from moulin.evaluate.pages.figures import colours, utterance_plot
from moulin.evaluate.pages.plots import Row, strip_chart
from moulin.evaluate.results.offline import OfflineFigures, Throughput

METHOD = (
    "All recordings in one call, from waveforms in memory to texts, after one whole pass that is not measured; the "
    "targets take turns, round after round."
)


def offline_sections(figures: OfflineFigures) -> list[Section]:
    targets = figures.targets
    palette = colours([target.name for target in targets])
    rows = [
        Row(
            target.name,
            [
                (f"round {number}", figures.audio_sec / seconds, f"s{palette[target.name]}")
                for number, seconds in enumerate(target.seconds, start=1)
            ],
            f"{target.rtfx_median:,.0f}",
        )
        for target in targets
    ]
    chart = strip_chart(rows, x_label="audio seconds a second (RTFx)")
    by_utterance = {
        target.name: {name: float(it.errors) for name, it in (target.utterances or {}).items()} for target in targets
    }
    plots = [
        Plot("Throughput: a dot for each round, a bar to the median", chart),
        *utterance_plot(by_utterance, palette),
    ]
    return [Section("", [_facts(figures)]), Section("Throughput", [Plots(plots), _table(figures)])]


def _facts(figures: OfflineFigures) -> Facts:
    def fastest(prefix: str) -> Throughput | None:
        named = (target for target in figures.targets if target.name.startswith(prefix))
        return max(named, key=lambda target: target.rtfx_median, default=None)

    best, peer, ours = (fastest(prefix) for prefix in ("", "sherpa", "moulin"))
    assert best is not None
    facts = [Fact(f"{best.rtfx_median:,.0f}×", "real time", f"{best.name}, median round")]
    if peer and ours:
        ratio = ours.rtfx_median / peer.rtfx_median
        facts.append(Fact(f"{ratio:.2f}", f"{ours.name} against {peer.name}", "the fastest of each, in the same run"))
    return Facts(facts)


def _table(figures: OfflineFigures) -> Table:
    return Table(
        ("target", "RTFx, median", "worst", "best", "CPU ms a second of audio", "WER", "errors", "words"),
        [
            (
                it.name,
                *(f"{rtfx:,.1f}" for rtfx in (it.rtfx_median, it.rtfx_worst, it.rtfx_best)),
                "-" if (used := it.cpu_ms_of_second(figures.audio_sec)) is None else f"{used:.1f}",
                f"{it.wer:.2%}",
                str(it.word_errors),
                str(it.words),
            )
            for it in figures.targets
        ],
    )
