"""The operator's choice of engine: how a model is run, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from moulin.bundle.choice import Head
from moulin.bundle.precision import Precision
from moulin.engine.device import gpu_index
from moulin.options import Bounds, check_options, option

Engine = Literal["onnxruntime", "torch", "tensorrt", "openvino"]
EngineWish = Literal[Engine, "auto"]
"""An engine, or the fastest one on this CPU (`models.auto_engine`)."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine's options. Where one is None, `models.precisions.settled` chooses by model and machine. Raises
    OptionsError for values that no model allows."""

    help_section: ClassVar[str] = "Engine"

    kind: EngineWish | None = option(
        None,
        "What runs the model; auto is what is fastest on this CPU, onnxruntime or openvino, by a table or as `moulin "
        "bench encoder --choose` measured.",
        flag="--engine",
        usual="onnxruntime for ONNX files, on a GPU torch where their weights can be read; torch for a checkpoint",
    )
    device: str = option("cpu", "cpu, cuda or cuda:N; with TensorRT always a GPU.")
    cuda_graphs: bool = option(True, "Launch whole passes of a checkpoint on a GPU at once.")
    precision: Precision | None = option(
        None,
        "Which variant of the ONNX files to take; in what to run a checkpoint, or files on TensorRT or OpenVINO.",
        usual="the most exact file there is; a checkpoint in fp32, on a GPU in fp16; TensorRT in fp16, OpenVINO fp32",
    )
    threads: int | None = option(None, "CPU threads.", usual="all", bounds=Bounds(at_least=1))
    head: Head | None = option(
        None,
        "Which head decodes a model that has both, or a folder with a file for each.",
        usual="the transducer; ctc for a model with that alone",
    )
    workers: int | None = None
    """Concurrent calls of an exported encoder on a CPU; by default as many as suit the threads."""
    plan: Path | None = None
    """The file of a TensorRT engine; None takes it from the cache, where it is built if it is not there."""

    def __post_init__(self) -> None:
        check_options(self)
        gpu_index(self.device)

    @property
    def runs_on(self) -> str:
        """The device on which the engine runs. TensorRT runs on GPUs only: there cpu, the default of the command line,
        means the first GPU."""
        return "cuda" if self.kind == "tensorrt" and self.device == "cpu" else self.device

    @property
    def gpu(self) -> int | None:
        """The GPU's number, or None on the CPU."""
        return gpu_index(self.device)

    @property
    def named(self) -> Engine | None:
        """The engine, where one was named."""
        return None if self.kind == "auto" else self.kind

    @property
    def for_exported(self) -> dict[str, Any]:
        """The arguments that the runners of exported files share, on ONNX Runtime and on OpenVINO, once every choice
        is settled."""
        where = {"precision": self.precision or "fp32"} if self.kind == "openvino" else {"device": self.device}
        return {"threads": self.threads, "workers": self.workers, **where}

    @property
    def file_precision(self) -> Precision | None:
        """The precision of the files to take. TensorRT and OpenVINO make of files in fp32 what runs in `precision`, but
        for int8 on OpenVINO; for networks, which run in `precision`, the most exact files are the best."""
        if self.kind == "openvino" and self.precision == "int8":
            return "int8"
        if self.kind in ("tensorrt", "openvino") or (self.kind == "auto" and self.precision == "bf16"):
            return "fp32"
        return None if self.kind == "torch" else self.precision

    @property
    def may_be_gpu_engine(self) -> bool:
        """Whether ONNX files run on our GPU engine where they can."""
        return self.named is None and self.gpu is not None and self.precision in (None, "fp16", "bf16")

    @property
    def prefers_checkpoint(self) -> bool:
        """Whether the checkpoint is taken from a folder with both forms of a model."""
        return self.kind == "torch"


USUAL_ENGINE = EngineChoice()
