"""Streaming runner on ONNX Runtime."""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.batched_fbank import BatchedFbank
from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import ExportedSpec, OnnxModelSpec
from moulin.engine.batching import CPU_BATCH_STREAMS, GPU_BATCH_STREAMS
from moulin.engine.exported_encoder import Values
from moulin.engine.exported_stream_encoder import ExportedStreamEncoder
from moulin.engine.limits import MAX_STREAMS
from moulin.engine.onnxruntime.checked_rewrite import open_checked
from moulin.engine.onnxruntime.fbank import OnnxRuntimeFbank
from moulin.engine.onnxruntime.prediction import OnnxRuntimePrediction
from moulin.engine.onnxruntime.session import run
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_runner import check_counts


class OnnxRuntimeStreamEncoder(ExportedStreamEncoder):
    """An encoder as an ONNX Runtime session; its states in main memory.

    On a CPU concurrent encoder calls share the threads.
    """

    def __init__(
        self,
        spec: ExportedSpec,
        *,
        device: str = "cpu",
        threads: int | None = None,
        workers: int | None = None,
        capacity: int = MAX_STREAMS,
        max_batch: int | None = None,
        rewrite: bool = True,
    ) -> None:
        """`threads` and `rewrite` are those of `OnnxRuntimeRunner`; `workers` is the number of concurrent
        encoder calls on a CPU, by default one a thread. `capacity` is the limit on open streams, `max_batch` on streams
        in a batch.

        Raises EngineError where ONNX Runtime, the device or the model does not work.
        """
        check_counts({"threads": threads, "streams": capacity, "streams in a batch": max_batch})
        on_cpu = device == "cpu"
        threads = threads or len(os.sched_getaffinity(0))
        workers = (workers or threads) if on_cpu else 1
        limits = StepLimits(capacity, max_batch or (CPU_BATCH_STREAMS if on_cpu else GPU_BATCH_STREAMS), workers)
        super().__init__(spec, limits)
        self._encoder, _ = open_checked(
            spec.encoder,
            device,
            max(1, threads // workers),
            feature_dim=spec.feature_dim,
            precision=spec.precision,
            rewrite=rewrite,
            streaming=spec.streaming,
        )
        self._fbank = OnnxRuntimeFbank(BatchedFbank(FbankOptions(num_mel_bins=spec.feature_dim)), device)

    def fbank(self, frames: Floats) -> Floats:
        return self._fbank(frames)

    def _infer(self, values: Values) -> list[NDArray[Any]]:
        return run(self._encoder, self._outputs, values)


class OnnxRuntimeStreamRunner(OnnxRuntimeStreamEncoder, OnnxRuntimePrediction):
    """Encoder, decoder and joiner as ONNX Runtime sessions."""

    def __init__(self, spec: OnnxModelSpec, **settings: Any) -> None:
        """`settings` are those of `OnnxRuntimeStreamEncoder`."""
        OnnxRuntimeStreamEncoder.__init__(self, spec, **settings)
        OnnxRuntimePrediction.__init__(self, spec)
