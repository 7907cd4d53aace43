"""`moulin bench gpu`: our offline GPU engine in process, by parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from moulin.cli.bench_options import AT_LEAST_1, MeasuredModel, ToOption, positive_numbers
from moulin.cli.bench_runs import finish
from moulin.cli.flags import with_flags
from moulin.cli.interrupt import STATUS
from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.options import Bounds, check_options, option

if TYPE_CHECKING:
    from moulin.engine.recognizer import Recognizer

_SIZES = "zipformer2-66m,zipformer2-290m"
_USUAL_BEAM, _BEAMS = 4, {"zipformer2-290m": 6}
_SEARCH_BATCHES = (1, 2, 4, 8, 16, 64, 256)
_SEARCH_SEC = 11.0  # 275 encoder frames


@dataclass(frozen=True, slots=True)
class GpuRuns:
    """Options of the parts and models that are measured."""

    help_section: ClassVar[str] = "Runs"

    sizes: str = option(_SIZES, "Models of published sizes with random weights, separated by commas.")
    model: Path | None = option(None, "The folder of an offline checkpoint instead.")
    parts: str = option("pipeline", "What to measure, of the parts above, separated by commas.")
    beam: int | None = option(
        None, "Of the parts pipeline, hotwords and search.", usual="4; 6 for zipformer2-290m", bounds=AT_LEAST_1
    )
    batches: str = option("256,1", "Utterances in a call, of the parts pipeline and hotwords.")
    calls: str = option("4,60", "How many calls of each, of the parts pipeline and hotwords.")
    utterances: int = option(100_000, "Of the part memory.", bounds=Bounds(at_least=256))
    device: str = option("cuda", "cuda or cuda:N.")

    def __post_init__(self) -> None:
        check_options(self)


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: moulin bench gpu --parts pipeline --sizes zipformer2-66m --to gpu.json")(gpu)


@with_flags
def gpu(runs: GpuRuns, to: ToOption = None) -> None:
    """Our offline GPU engine in this process, from waveforms in host memory to transcripts with word times.

    Parts: pipeline (RTFx by search and by utterances a call); options (equal options against another set for each
    utterance); hotwords (100 phrases for each utterance against none); search (the search's kernels alone); breakdown
    (where a call spends its time); memory (of the GPU, over many utterances). The encoder alone is measured by bench
    encoder, the service by bench offline --workers. Ctrl-C ends with what there is.
    """
    from moulin.evaluate.report_files import check_outputs
    from moulin.evaluate.results.fields import from_json, to_json
    from moulin.evaluate.results.gpu_engine import GpuEngineFigures

    check_outputs(to or [])
    shapes = _shapes(runs.batches, runs.calls)
    done: dict[str, list[Any]] = {part: [] for part in _parts(runs.parts)}
    _check_gpu(runs.device)
    choice = EngineChoice("torch", runs.device, precision="fp16")
    spec, interrupted = None, False
    try:
        for size in [None] if runs.model else runs.sizes.split(","):
            with MeasuredModel(runs.model, size, choice).opened("offline") as (spec, engine):
                beam = runs.beam or _BEAMS.get(spec.name, _USUAL_BEAM)
                _measure(spec.file, engine, _Wanted(spec.name, beam, shapes, runs.utterances), done)
    except KeyboardInterrupt:
        interrupted = True
    if any(done.values()):
        figures = from_json(GpuEngineFigures, {**to_json(done), "interrupted": interrupted})
        finish(spec, figures, to)
    if interrupted:
        raise typer.Exit(STATUS)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The measurements of the model called `size`; `shapes` are (utterances in a call, calls) of the pipeline."""

    size: str
    beam: int
    shapes: Sequence[tuple[int, int]]
    utterances: int


def _measure(model: Path, engine: EngineChoice, wanted: _Wanted, done: Mapping[str, list[Any]]) -> None:
    """Measure the parts in `done`, print their figures, and add them to `done`."""
    from moulin.evaluate.results.fields import to_json
    from moulin.models.open_recognizer import open_recognizer

    typer.echo(f"opening {wanted.size} …", err=True)
    with open_recognizer(model, engine) as recognizer:
        getattr(recognizer.pipeline, "capture_all", lambda: None)()
        for part, runs in done.items():
            for run in _PARTS[part](recognizer, wanted):
                runs.append(run)
                shown = {name: value for name, value in to_json(run).items() if not isinstance(value, list)}
                typer.echo("  ".join([part, *(f"{name}={_text(value)}" for name, value in shown.items())]))


def _pipeline(recognizer: Recognizer, wanted: _Wanted) -> Iterator[object]:
    from moulin.decoding.options import DecodingOptions
    from moulin.evaluate.gpu_benchmark import GREEDY, measure_pipeline

    for options in (GREEDY, DecodingOptions("modified_beam_search", beam=wanted.beam)):
        for batch, calls in wanted.shapes:
            yield measure_pipeline(recognizer, wanted.size, options, batch, calls)


def _options(recognizer: Recognizer, wanted: _Wanted) -> Iterator[object]:
    from moulin.evaluate.gpu_benchmark import measure_options

    yield measure_options(recognizer, wanted.size)


def _hotwords(recognizer: Recognizer, wanted: _Wanted) -> Iterator[object]:
    from moulin.evaluate.gpu_benchmark import measure_hotwords

    for batch, calls in wanted.shapes:
        yield measure_hotwords(recognizer, wanted.size, wanted.beam, batch, calls)


def _search(recognizer: Recognizer, wanted: _Wanted) -> Iterator[object]:
    from moulin.decoding.options import DecodingOptions
    from moulin.evaluate.gpu_benchmark import GREEDY, measure_search

    for options in (GREEDY, DecodingOptions("modified_beam_search", beam=wanted.beam)):
        yield from measure_search(recognizer, wanted.size, options, _SEARCH_BATCHES, _SEARCH_SEC)


def _breakdown(recognizer: Recognizer, wanted: _Wanted) -> Iterator[object]:
    from moulin.evaluate.gpu_benchmark import measure_breakdown

    yield measure_breakdown(recognizer, wanted.size)


def _memory(recognizer: Recognizer, wanted: _Wanted) -> Iterator[object]:
    from moulin.evaluate.gpu_benchmark import measure_memory

    yield measure_memory(recognizer, wanted.size, wanted.utterances, lambda line: typer.echo(line, err=True))


_PARTS: Mapping[str, Callable[[Recognizer, _Wanted], Iterator[object]]] = {
    "pipeline": _pipeline,
    "options": _options,
    "hotwords": _hotwords,
    "search": _search,
    "breakdown": _breakdown,
    "memory": _memory,
}


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := [part for part in parts if part not in _PARTS]:
        raise OptionsError(f"There is no part {unknown[0]!r}", hint=f"the parts are {', '.join(_PARTS)}")
    return parts


def _shapes(batches: str, calls: str) -> list[tuple[int, int]]:
    utterances, times = (
        positive_numbers(batches, "--batches", "utterances"),
        positive_numbers(calls, "--calls", "calls"),
    )
    if len(utterances) != len(times):
        raise OptionsError(f"Expected as many --calls as --batches, got {calls!r} and {batches!r}")
    return list(zip(utterances, times, strict=True))


def _check_gpu(device: str) -> None:
    from moulin.engine.device import gpu_index
    from moulin.models.engines import check_gpu_engine

    if gpu_index(device) is None:
        raise OptionsError(f"bench gpu measures our GPU engine, which does not run on {device}", hint="--device cuda")
    check_gpu_engine(device)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}:{_text(its)}" for name, its in value.items() if not isinstance(its, list))
    return f"{value:,.1f}" if isinstance(value, float) else str(value)
