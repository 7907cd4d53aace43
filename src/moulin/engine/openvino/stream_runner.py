"""Streaming runner on OpenVINO."""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.batched_fbank import BatchedFbank
from moulin.audio.fbank import FbankOptions
from moulin.bundle.precision import Precision
from moulin.bundle.spec import ExportedSpec, OnnxModelSpec
from moulin.engine.batching import CPU_BATCH_STREAMS
from moulin.engine.exported_encoder import Values
from moulin.engine.exported_stream_encoder import ExportedStreamEncoder
from moulin.engine.limits import MAX_STREAMS
from moulin.engine.onnxruntime.fbank import OnnxRuntimeFbank
from moulin.engine.onnxruntime.prediction import OnnxRuntimePrediction
from moulin.engine.openvino.compiled import CompiledModel
from moulin.engine.openvino.parity import check_parity
from moulin.engine.openvino.rewritten import rewritten_for_openvino
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_runner import check_counts


class OpenVinoStreamEncoder(ExportedStreamEncoder):
    """A compiled encoder; its states in main memory, and the features on ONNX Runtime."""

    def __init__(
        self,
        spec: ExportedSpec,
        *,
        precision: Precision,
        threads: int | None = None,
        workers: int | None = None,
        capacity: int = MAX_STREAMS,
        max_batch: int | None = None,
    ) -> None:
        """`precision` is fp32, bf16 or int8, as for `OpenVinoEncoder`. The other options are those of
        `OnnxRuntimeStreamEncoder`.

        Raises EngineError where OpenVINO or the model does not work, or does not give on speech what ONNX Runtime does.
        """
        check_counts({"threads": threads, "streams": capacity, "streams in a batch": max_batch})
        threads = threads or len(os.sched_getaffinity(0))
        workers = workers or threads
        super().__init__(spec, StepLimits(capacity, max_batch or CPU_BATCH_STREAMS, workers))
        graph = spec.encoder
        self._encoder = CompiledModel(
            rewritten_for_openvino(graph), graph.file, precision=precision, threads=threads, streams=workers
        )
        check_parity(graph, self._encoder, precision, feature_dim=spec.feature_dim, streaming=spec.streaming)
        self._fbank = OnnxRuntimeFbank(BatchedFbank(FbankOptions(num_mel_bins=spec.feature_dim)), "cpu")

    def fbank(self, frames: Floats) -> Floats:
        return self._fbank(frames)

    def _infer(self, values: Values) -> list[NDArray[Any]]:
        return self._encoder(values, self._outputs)


class OpenVinoStreamRunner(OpenVinoStreamEncoder, OnnxRuntimePrediction):
    """The encoder on OpenVINO; decoder and joiner, which are small, as ONNX Runtime sessions."""

    def __init__(self, spec: OnnxModelSpec, **settings: Any) -> None:
        """`settings` are those of `OpenVinoStreamEncoder`."""
        OpenVinoStreamEncoder.__init__(self, spec, **settings)
        OnnxRuntimePrediction.__init__(self, spec)
