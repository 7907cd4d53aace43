"""The page of `moulin bench accuracy`."""

from __future__ import annotations

from moulin.evaluate.pages.blocks import Alignment, Block, Fact, Facts, Paragraph, Plot, Plots, Section, Table
from moulin.evaluate.pages.figures import MAX_ROWS, colours, failures, figure, utterance_plot
from moulin.evaluate.pages.plots import Row, bar_chart, legend
from moulin.evaluate.results.accuracy import AccuracyFigures, TargetAccuracy
from moulin.evaluate.wer import align_words

METHOD = (
    "Every recording once. Errors are those of the alignment with the fewest; rates are pooled over all words or "
    "characters of the references. What failed is not in them."
)


def accuracy_sections(figures: AccuracyFigures) -> list[Section]:
    results = figures.accuracy
    facts = [
        Fact(f"{it.wer.rate:.2%}", it.target, f"{it.wer.errors} errors in {it.wer.reference} words") for it in results
    ]
    by_utterance = {
        it.target: {one.id: float(one.errors) for one in it.utterances if one.failure is None} for it in results
    }
    plots = [_kinds_plot(figures), *utterance_plot(by_utterance, colours([it.target for it in results]))]
    return [
        Section("", [Facts(facts)]),
        Section("Word errors", [Plots(plots), _table(figures), *failures(results)]),
        *(section for result in results for section in _what_was_wrong(result)),
    ]


def _kinds_plot(figures: AccuracyFigures) -> Plot:
    kinds = (("substitutions", "s0"), ("deletions", "s1"), ("insertions", "s2"))
    bars = [
        Row(
            it.target,
            [(kind, 100 * getattr(it.wer, kind) / max(1, it.wer.reference), css) for kind, css in kinds],
            f"{it.wer.rate:.2%}",
        )
        for it in figures.accuracy
    ]
    return Plot("Errors by kind, % of the words", bar_chart(bars, x_label="% of the words") + legend(kinds))


def _table(figures: AccuracyFigures) -> Table:
    header = (
        "target",
        "WER",
        "errors",
        "ins",
        "del",
        "sub",
        "words",
        "CER",
        "recordings with errors",
        "failed",
        "RTFx",
    )
    return Table(
        header,
        [
            (
                it.target,
                f"{it.wer.rate:.2%}",
                *(str(count) for count in (it.wer.errors, it.wer.insertions, it.wer.deletions)),
                *(str(count) for count in (it.wer.substitutions, it.wer.reference)),
                f"{it.cer.rate:.2%}",
                f"{it.sentence_errors} of {it.recordings - it.failures}",
                str(it.failures),
                figure(it.rtfx, 1),
            )
            for it in figures.accuracy
        ],
    )


def _what_was_wrong(result: TargetAccuracy) -> list[Section]:
    """Alignments of the recordings with the most errors."""
    wrong = sorted((it for it in result.utterances if it.errors), key=lambda it: -it.errors)
    shown: list[Block] = [
        Alignment(f"{it.id}: {it.errors} of {it.words}", align_words(it.said, it.heard, normalize=str))
        for it in wrong[:MAX_ROWS]
    ]
    if len(wrong) > MAX_ROWS:
        shown.append(Paragraph(f"… and {len(wrong) - MAX_ROWS} more with fewer errors."))
    return [Section(f"What {result.target} got wrong", shown)] if shown else []
