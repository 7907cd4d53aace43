"""The page of `moulin bench gpu`: a table for each part."""

from __future__ import annotations

from moulin.evaluate.pages.blocks import Fact, Facts, Section
from moulin.evaluate.pages.figures import table_of
from moulin.evaluate.results.gpu_engine import GpuEngineFigures

METHOD = (
    "Waveforms in host memory to transcripts with word times, on a model of a published size with random weights that "
    "emits a token every nine frames. Calls follow each other; every batch size is warmed up."
)


def gpu_engine_sections(figures: GpuEngineFigures) -> list[Section]:
    parts = (
        ("The whole pipeline, RTFx", figures.pipeline),
        ("Equal and mixed options", figures.options),
        ("With and without hotwords", figures.hotwords),
        ("The search's kernels", figures.search),
        ("Where a call spends its time", figures.breakdown),
        ("GPU memory", figures.memory),
    )
    sections = [Section(title, [table_of(runs)]) for title, runs in parts if runs]
    best = max(figures.pipeline, key=lambda run: run.int16.rtfx, default=None)
    if best is None:
        return sections
    about = f"{best.size}, {best.method}, {best.batch} utterances a call, int16"
    return [Section("", [Facts([Fact(f"{best.int16.rtfx:,.0f}×", "real time", about)])]), *sections]
