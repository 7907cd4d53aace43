"""The page of `moulin bench gpu`: a table for each part."""

from __future__ import annotations

from moulin.evaluate.pages.blocks import Fact, Facts, Section, Table
from moulin.evaluate.results.gpu_engine import Breakdown, GpuEngineFigures

METHOD = (
    "Waveforms in host memory to transcripts with word times, on a model of a published size with random weights that "
    "emits a token every nine frames. Calls follow each other; every batch size is warmed up."
)


def gpu_engine_sections(figures: GpuEngineFigures) -> list[Section]:
    tables = {
        "The whole pipeline": _pipeline(figures),
        "Equal and mixed options": Table(
            ("model", "utterances", "equal options, ms", "mixed options, ms", "ratio"),
            [
                (it.size, str(it.batch), f"{it.equal_ms:,.1f}", f"{it.mixed_ms:,.1f}", f"{it.ratio:.2f}")
                for it in figures.options
            ],
        ),
        "The search alone": Table(
            ("model", "search", "utterances", "frames", "µs"),
            [
                (it.size, _search(it.method, it.beam), str(it.batch), str(it.frames), f"{it.us:,.0f}")
                for it in figures.search
            ],
        ),
        "A call by steps": _breakdown(figures),
        "Encoders": Table(
            ("model", "frames", "utterances", "ms", "modules in PyTorch, ms"),
            [
                (it.size, str(it.frames), batch, f"{ms:.2f}", f"{it.plain_modules_ms[batch]:.2f}")
                for it in figures.encoder
                for batch, ms in it.ms.items()
            ],
        ),
        "GPU memory": Table(
            ("utterances", "reserved after each tenth, MiB"),
            [(f"{it.utterances:,}", ", ".join(map(str, it.reserved_mib))) for it in figures.memory],
        ),
        "Through Triton": Table(
            ("model", "instances", "requests under way", "RTFx", "p50, ms", "p95, ms", "p99, ms", "failed"),
            [
                (
                    f"{it.size}, int16" if it.int16 else it.size,
                    str(it.instances),
                    str(it.clients * it.concurrency),
                    f"{it.rtfx:,.0f}",
                    *(f"{ms:.0f}" for ms in (it.p50_ms, it.p95_ms, it.p99_ms)),
                    str(it.failures),
                )
                for it in figures.triton
            ],
        ),
    }
    sections = [Section(title, [table]) for title, table in tables.items() if table.rows]
    best = max(figures.pipeline, key=lambda run: run.int16.rtfx, default=None)
    if best is None:
        return sections
    about = f"{best.size}, {_search(best.method, best.beam)}, {best.batch} utterances a call"
    facts = [Fact(f"{best.int16.rtfx:,.0f}×", "real time", f"{about}, int16")]
    return [Section("", [Facts(facts)]), *sections]


def _pipeline(figures: GpuEngineFigures) -> Table:
    return Table(
        ("model", "search", "utterances a call", "calls", "RTFx, float32", "RTFx, int16"),
        [
            (
                it.size,
                _search(it.method, it.beam),
                *(str(count) for count in (it.batch, it.calls)),
                *(f"{calls.rtfx:,.0f}" for calls in (it.float32, it.int16)),
            )
            for it in figures.pipeline
        ],
    )


def _breakdown(figures: GpuEngineFigures) -> Table:
    def row(it: Breakdown) -> tuple[str, ...]:
        steps = ", ".join(f"{name.removeprefix('_')} {ms:g}" for name, ms in it.ms.items())
        return it.size, f"{it.rtfx:,.0f}", steps, f"{it.gpu_busy_ms:g}"

    header = ("model", "RTFx", "host, ms", "GPU busy, ms")
    return Table(header, [row(it) for it in figures.breakdown])


def _search(method: str, beam: int) -> str:
    return "greedy" if method == "greedy" else f"beam {beam}"
