"""What a person chooses of the engine: how a model is run, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moulin.bundle.precision import Precision
from moulin.engine.device import gpu_index
from moulin.options import Bounds, check_options, option

Engine = Literal["onnxruntime", "torch", "tensorrt"]


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """None leaves a choice to the model and the machine: `models.precisions.settled` makes it. Raises OptionsError for
    what is no choice at all."""

    kind: Engine | None = option(
        None,
        "What runs the model.",
        flag="--engine",
        usual="onnxruntime for ONNX files, torch for a checkpoint",
    )
    device: str = option("cpu", "cpu, cuda or cuda:N; with TensorRT always a GPU.")
    cuda_graphs: bool = option(True, "Launch whole passes of a checkpoint on a GPU at once.")
    precision: Precision | None = option(
        None,
        "Which variant of the ONNX files to take; in what to run a checkpoint or an engine of TensorRT.",
        usual="the most exact file there is; a checkpoint in fp32, on a GPU in fp16; TensorRT in fp16",
    )
    threads: int | None = option(None, "CPU threads.", usual="all", bounds=Bounds(at_least=1))
    workers: int | None = None
    """Calls of ONNX Runtime's encoder that may run beside each other; by default what suits the threads."""
    plan: Path | None = None
    """The engine, for TensorRT; without one it is taken from the cache or built into it."""

    def __post_init__(self) -> None:
        check_options(self)
        gpu_index(self.device)

    @property
    def runs_on(self) -> str:
        """Where the engine runs if `device` is what was asked for. TensorRT has no CPUs: there cpu, the default of the
        command line, means the first GPU."""
        return "cuda" if self.kind == "tensorrt" and self.device == "cpu" else self.device

    @property
    def gpu(self) -> int | None:
        """The GPU's number, or None on the CPU."""
        return gpu_index(self.device)

    @property
    def file_precision(self) -> Precision | None:
        """Which files to take: engines of TensorRT are built from fp32 ones, and are what `precision` is about."""
        return "fp32" if self.kind == "tensorrt" else self.precision

    @property
    def prefers_checkpoint(self) -> bool:
        """Whether a folder with both forms of a model is taken for its checkpoint."""
        return self.kind == "torch"


USUAL_ENGINE = EngineChoice()
