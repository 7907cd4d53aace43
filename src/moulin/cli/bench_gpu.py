"""`moulin bench gpu`: our offline GPU engine in process, by parts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moulin.cli.bench_options import ToOption, measured_model, positive_numbers
from moulin.cli.interrupt import STATUS
from moulin.errors import OptionsError

if TYPE_CHECKING:
    from moulin.engine.recognizer import Recognizer

_SIZES = "zipformer2-66m,zipformer2-290m"
_USUAL_BEAM, _BEAMS = 4, {"zipformer2-290m": 6}
_SEARCH_BATCHES = (1, 2, 4, 8, 16, 64, 256)
_SEARCH_SEC = 11.0  # 275 encoder frames


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: moulin bench gpu --parts pipeline --sizes zipformer2-66m --to gpu.json")(gpu)


def gpu(
    sizes: Annotated[
        str, typer.Option(help="Models of published sizes with random weights, separated by commas.")
    ] = _SIZES,
    model: Annotated[Path | None, typer.Option(help="The folder of an offline checkpoint instead.")] = None,
    parts: Annotated[str, typer.Option(help="What to measure, of the parts below, separated by commas.")] = "pipeline",
    beam: Annotated[
        int | None, typer.Option(min=1, help="Of the parts pipeline and search.  [default: 4; 6 for zipformer2-290m]")
    ] = None,
    batches: Annotated[str, typer.Option(help="Utterances in a call, of the part pipeline.")] = "256,1",
    calls: Annotated[str, typer.Option(help="How many calls of each, of the part pipeline.")] = "4,60",
    utterances: Annotated[int, typer.Option(min=256, help="Of the part memory.")] = 100_000,
    device: Annotated[str, typer.Option(help="cuda or cuda:N.")] = "cuda",
    to: ToOption = None,
) -> None:
    """Our offline GPU engine in this process, from waveforms in host memory to transcripts with word times.

    Parts: pipeline (RTFx by search and by utterances a call); options (equal options against another set for each
    utterance); search (the search's kernels alone); breakdown (where a call spends its time); memory (of the GPU, over
    many utterances). The encoder alone is measured by bench encoder, the service by bench offline --workers. Ctrl-C
    ends with what there is.
    """
    from moulin.evaluate.report import check_outputs, make_report, write
    from moulin.evaluate.results.fields import from_json, to_json
    from moulin.evaluate.results.gpu_engine import GpuEngineFigures

    check_outputs(to or [])
    chosen, shapes = _parts(parts), _shapes(batches, calls)
    _check_gpu(device)
    measured: dict[str, list[Any]] = {part: [] for part in chosen}
    spec, interrupted = None, False
    try:
        for size in [None] if model else sizes.split(","):
            with measured_model(model, size, "fp16", "torch", device, "offline") as spec:
                wanted = _Wanted(spec.name, beam or _BEAMS.get(spec.name, _USUAL_BEAM), shapes, utterances)
                _measure(spec.file, device, wanted, measured)
    except KeyboardInterrupt:
        interrupted = True
    if to and any(measured.values()):
        figures = from_json(GpuEngineFigures, {**to_json(measured), "interrupted": interrupted})
        write(make_report(sys.argv[1:], spec, figures), to)
    if interrupted:
        raise typer.Exit(STATUS)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What to measure of the model called `size`; `shapes` are utterances in a call, and calls, of the pipeline."""

    size: str
    beam: int
    shapes: Sequence[tuple[int, int]]
    utterances: int


def _measure(model: Path, device: str, wanted: _Wanted, measured: Mapping[str, list[Any]]) -> None:
    """Print the figures of each part in `measured`, and put them there."""
    from moulin.evaluate.results.fields import to_json
    from moulin.models.engine_choice import EngineChoice
    from moulin.models.open_recognizer import open_recognizer

    typer.echo(f"opening {wanted.size} …", err=True)
    with open_recognizer(model, EngineChoice(device=device, precision="fp16")) as recognizer:
        for part, runs in measured.items():
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
