"""`--engine auto`: the engine and precision that run a model's ONNX files fastest on this CPU.

What was measured on this machine and kept decides (`moulin bench encoder --choose`), else the table, which knows
processors by their instructions and models by their size. It is decided where a repository is built, whose config.pbtxt
names the engine: all servers of that repository give the same words.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec

from moulin.bundle.precision import Precision
from moulin.bundle.spec import ExportedSpec, ModelSpec
from moulin.models.engine_choice import EngineChoice
from moulin.models.kept_way import Way, kept_way
from moulin.processor import Processor, this_processor

logger = logging.getLogger(__name__)

WORTH = 1.1
"""How much faster than ONNX Runtime another engine must be: it takes longer to load, and is slower with each new length
of audio."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table: for processors with one of `flags`, models of `mode` and files of at least `size_mb`."""

    flags: frozenset[str]
    mode: str
    size_mb: int
    way: Way


_BF16 = frozenset({"avx512_bf16", "amx_bf16"})

TABLE: tuple[_Row, ...] = (_Row(_BF16, "offline", 200, Way("openvino", "bf16")),)
"""The ways that are faster than ONNX Runtime by WORTH, the first that can be taken first; docs/cpu-engine.md has the
figures. Where no line fits, ONNX Runtime runs the files in their own precision."""


def ways(spec: ExportedSpec, processor: Processor | None = None) -> list[Way]:
    """All ways that this machine has to run the files of `spec`, ONNX Runtime first."""
    found = [Way("onnxruntime", spec.precision)]
    if find_spec("openvino") is None:
        return found
    multiplies_bf16 = (processor or this_processor()).multiplies_bf16
    if spec.precision == "fp32":
        found += [Way("openvino", "fp32"), *([Way("openvino", "bf16")] if multiplies_bf16 else [])]
    elif spec.precision == "int8" and multiplies_bf16:
        found.append(Way("openvino", "int8"))
    return found


def fastest(
    spec: ExportedSpec, precision: Precision | None = None, processor: Processor | None = None
) -> tuple[Way, str]:
    """The fastest way to run `spec`, in `precision` where it is given, and how that is known: measured, or by the
    table."""
    processor = processor or this_processor()
    possible = [way for way in ways(spec, processor) if precision in (None, way.precision)]
    if (kept := kept_way(spec, processor)) in possible:
        return kept, "measured on this machine"
    size_mb = spec.encoder.size_bytes / 1e6
    for row in TABLE:
        if row.flags & processor.flags and row.mode == spec.mode and row.size_mb <= size_mb and row.way in possible:
            return row.way, "by the table"
    # A precision that cannot be had is refused as with the engine named (`models.precisions`).
    return possible[0] if possible else Way("onnxruntime", precision or spec.precision), "by the table"


def resolved(spec: ModelSpec, choice: EngineChoice) -> EngineChoice:
    """`choice`, of an engine `auto`, with the engine that runs `spec`; the usual one for a checkpoint, or on a GPU."""
    if choice.gpu is not None or not isinstance(spec, ExportedSpec):
        return replace(choice, kind=None)
    way, how = fastest(spec, choice.precision)
    _say(f"{spec.name} runs on {way}, {how}: {this_processor()}")
    return replace(choice, kind=way.engine, precision=way.precision)


def best_of(milliseconds: dict[Way, float]) -> Way:
    """The way to take after a measurement of some, among them ONNX Runtime."""
    usual = next(way for way in milliseconds if way.engine == "onnxruntime")
    best = min(milliseconds, key=milliseconds.__getitem__)
    return best if milliseconds[usual] >= WORTH * milliseconds[best] else usual


@cache
def _say(line: str) -> None:
    """Once in a process: commands look at a model more than once."""
    logger.info(line)
