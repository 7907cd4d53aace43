"""Models that OpenVINO compiles for this machine's CPU."""

from __future__ import annotations

import queue
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.bundle.precision import Precision
from moulin.engine.exported_encoder import Values
from moulin.engine.graph_parity import Feeds
from moulin.errors import EngineError, OptionsError, first_line
from moulin.extras import install_hint
from moulin.processor import this_processor

_COMPUTES_IN: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "int8": "bf16"}
"""The weights of int8 files are multiplied in bfloat16."""


def check_openvino(device: str) -> None:
    """Raise OptionsError where OpenVINO is to run on a GPU, and EngineError where it is not installed."""
    if device != "cpu":
        raise OptionsError(f"The engine openvino runs on CPUs, not on {device}", hint="leave out --device or --engine")
    _core()


def check_bf16(precision: Precision) -> None:
    """Raise EngineError for a `precision` that is computed in bfloat16 where this processor has no such products:
    OpenVINO would compute in fp32 in silence."""
    processor = this_processor()
    if _COMPUTES_IN[precision] == "bf16" and not processor.multiplies_bf16:
        raise EngineError(
            f"Expected a processor with AVX-512 BF16, AMX or Arm's BF16 for {precision}, got {processor}",
            hint="choose --engine onnxruntime" if precision == "int8" else "leave out --precision",
        )


class CompiledModel:
    """A compiled model, for as many calls at once as it has `streams`; further ones wait."""

    def __init__(self, content: bytes, file: Path, *, precision: Precision, threads: int, streams: int = 1) -> None:
        """`content` is an ONNX model, made of `file`; `threads` are those of all `streams` together.

        Raises EngineError where OpenVINO does not take the model, or the processor not the precision.
        """
        check_bf16(precision)
        self._file = file
        settings = {
            "INFERENCE_PRECISION_HINT": _COMPUTES_IN[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            # Its own choice of cores would be the same for every process of a machine.
            "ENABLE_CPU_PINNING": False,
            # Kernels that are kept; of each shape there are hundreds, and of the usual 5,000 a dozen shapes.
            "CPU_RUNTIME_CACHE_CAPACITY": 50_000,
        }
        try:
            core = _core()
            compiled = core.compile_model(core.read_model(content), "CPU", settings)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO cannot load {file}: {first_line(error)}") from error
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())

    def __call__(self, values: Values, outputs: list[str]) -> list[NDArray[Any]]:
        """The model's `outputs` for `values`. Raises EngineError."""
        return self.run(outputs, {tensor.name: value.astype(tensor.dtype, copy=False) for tensor, value in values})

    def run(self, outputs: list[str], feeds: Feeds) -> list[NDArray[Any]]:
        """The model's `outputs` for inputs of its own dtypes. Raises EngineError."""
        # The view names the dtype anew: OpenVINO does not know C's long long, which ONNX Runtime's int64 is.
        inputs = {name: np.ascontiguousarray(value).view(value.dtype.name) for name, value in feeds.items()}
        request = self._requests.get()
        try:
            # `infer` of OpenVINO 2026.4 returns empty tensors where the model fails.
            request.start_async(inputs, share_inputs=True)
            request.wait()
            return [np.array(request.get_tensor(name).data) for name in outputs]
        except RuntimeError as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            raise EngineError(f"OpenVINO failed on {shapes}: {first_line(error)}") from error
        finally:
            self._requests.put(request)


@lru_cache
def _core() -> Any:
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise EngineError(
            "The engine openvino needs OpenVINO, which is not installed", hint=install_hint("openvino")
        ) from error
    return openvino.Core()
