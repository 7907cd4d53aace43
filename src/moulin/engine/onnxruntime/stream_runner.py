"""Streaming runner on ONNX Runtime."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.audio.batched_fbank import BatchedFbank
from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import CtcModelSpec, OnnxModelSpec
from moulin.decoding.blank_skip import with_blank
from moulin.engine.batching import CPU_BATCH_STREAMS, GPU_BATCH_STREAMS
from moulin.engine.limits import MAX_STREAMS
from moulin.engine.onnxruntime.fbank import OnnxRuntimeFbank
from moulin.engine.onnxruntime.prediction import OnnxRuntimePrediction
from moulin.engine.onnxruntime.session import new_session, rewritten_encoder, run
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_runner import check_counts
from moulin.errors import BundleError
from moulin.streaming.encoder_states import EncoderStates


class OnnxRuntimeStreamEncoder:
    """An encoder as an ONNX Runtime session; its states in main memory.

    On a CPU concurrent encoder calls share the threads.
    """

    def __init__(
        self,
        spec: OnnxModelSpec | CtcModelSpec,
        *,
        device: str = "cpu",
        threads: int | None = None,
        workers: int | None = None,
        capacity: int = MAX_STREAMS,
        max_batch: int | None = None,
        rewrite: bool = True,
        with_blank: bool = False,
    ) -> None:
        """`threads`, `rewrite` and `with_blank` are those of `OnnxRuntimeRunner`; `workers` is the number of concurrent
        encoder calls on a CPU, by default one a thread. `capacity` is the limit on open streams, `max_batch` on streams
        in a batch.

        Raises EngineError where ONNX Runtime, the device or the model does not work.
        """
        if spec.streaming is None:
            raise BundleError(f"Expected a streaming model, got the {spec.mode} {spec.family} in {spec.path}")
        check_counts({"threads": threads, "streams": capacity, "streams in a batch": max_batch})
        on_cpu = device == "cpu"
        threads = threads or len(os.sched_getaffinity(0))
        workers = (workers or threads) if on_cpu else 1
        self.limits = StepLimits(capacity, max_batch or (CPU_BATCH_STREAMS if on_cpu else GPU_BATCH_STREAMS), workers)
        self._specs = spec.streaming.states
        self._states = EncoderStates(self._specs, capacity)
        self._x = spec.encoder.input("x", 0)
        self._inputs = [spec.encoder.input(state.name, -1) for state in self._specs]
        ctc_output = spec.ctc_output if with_blank and isinstance(spec, OnnxModelSpec) else None
        self._with_blank = ctc_output is not None
        self._outputs = [
            spec.log_probs if isinstance(spec, CtcModelSpec) else spec.encoder.output("encoder_out", 0).name,
            *(state.output for state in self._specs if state.output is not None),
            *([ctc_output] if ctc_output else []),
        ]
        self._encoder = new_session(
            spec.encoder.file,
            device,
            max(1, threads // workers),
            rewritten_encoder(spec.encoder, spec.precision, device) if rewrite else None,
            few_shapes=True,
            precision=spec.precision,
        )
        self._fbank = OnnxRuntimeFbank(BatchedFbank(FbankOptions(num_mel_bins=spec.feature_dim)), device)

    def fbank(self, frames: Floats) -> Floats:
        return self._fbank(frames)

    def encoder(self, x: Floats, slots: Ints) -> Floats:
        batches = [np.arange(len(slots))] if self._batches else np.arange(len(slots))[:, None]
        results = [self._run(x[rows], slots[rows]) for rows in batches]
        for rows, (_, states) in zip(batches, results, strict=True):  # after all batches have succeeded
            self._states.scatter(slots[rows], states)
        return np.concatenate([encoder_out for encoder_out, _ in results])

    def reset(self, slots: Ints) -> None:
        self._states.reset(slots)

    def _run(self, x: Floats, slots: Ints) -> tuple[Floats, list[NDArray[Any]]]:
        """Returns encoder_out and the next states."""
        states = self._states.gather(slots)
        encoder_out, *returned = run(
            self._encoder, self._outputs, [(self._x, x), *zip(self._inputs, states, strict=True)]
        )
        if self._with_blank:
            encoder_out = with_blank(encoder_out, returned.pop())
        outputs = iter(returned)
        return encoder_out.astype(np.float32, copy=False), [
            next(outputs) if spec.output is not None else state + spec.increment
            for spec, state in zip(self._specs, states, strict=True)
        ]

    @property
    def _batches(self) -> bool:
        """Whether the export has a dynamic batch axis."""
        return not isinstance(self._x.shape[0], int)


class OnnxRuntimeStreamRunner(OnnxRuntimeStreamEncoder, OnnxRuntimePrediction):
    """Encoder, decoder and joiner as ONNX Runtime sessions."""

    def __init__(self, spec: OnnxModelSpec, **settings: Any) -> None:
        """`settings` are those of `OnnxRuntimeStreamEncoder`."""
        OnnxRuntimeStreamEncoder.__init__(self, spec, **settings)
        OnnxRuntimePrediction.__init__(self, spec)
