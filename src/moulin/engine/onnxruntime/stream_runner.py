"""Streaming runner on ONNX Runtime."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.audio.batched_fbank import BatchedFbank
from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import OnnxModelSpec
from moulin.engine.limits import MAX_STREAMS
from moulin.engine.onnxruntime.fbank import OnnxRuntimeFbank
from moulin.engine.onnxruntime.prediction import OnnxRuntimePrediction
from moulin.engine.onnxruntime.session import new_session, rewritten_encoder, run
from moulin.engine.stream_runner import check_counts
from moulin.errors import BundleError
from moulin.streaming.encoder_states import EncoderStates

if TYPE_CHECKING:
    import onnxruntime

# Beyond this a batch no longer fits the caches of a CPU core: digits-en costs 4.2 ms a stream with one, 2.0 with 8,
# 1.9 with 16 and 2.4 with 32 on two cores.
_CPU_MAX_BATCH = 16
_CUDA_MAX_BATCH = 512


class OnnxRuntimeStreamRunner(OnnxRuntimePrediction):
    """Encoder, decoder and joiner as ONNX Runtime sessions; the encoder's states in main memory.

    On a CPU calls that run beside each other get one thread each; one that is said to be alone gets all, and the
    encoder is then there twice.
    """

    def __init__(
        self,
        spec: OnnxModelSpec,
        *,
        device: str = "cpu",
        threads: int | None = None,
        workers: int | None = None,
        capacity: int = MAX_STREAMS,
        max_batch: int | None = None,
        rewrite: bool = True,
    ) -> None:
        """`threads`, `workers` and `rewrite` as for `OnnxRuntimeRunner`; `capacity` streams may be open, and
        `max_batch` of them go through the encoder together.

        Raises EngineError where ONNX Runtime, the device or the model does not work.
        """
        if spec.streaming is None:
            raise BundleError(f"Expected a streaming model, got the {spec.mode} {spec.family} in {spec.path}")
        check_counts({"threads": threads, "streams": capacity, "streams in a batch": max_batch})
        super().__init__(spec)
        self.device = device
        self._capacity = capacity
        self._threads = threads or len(os.sched_getaffinity(0))
        self._workers = workers or self._threads
        self._max_batch = max_batch or (_CPU_MAX_BATCH if device == "cpu" else _CUDA_MAX_BATCH)
        self._specs = spec.streaming.states
        self._states = EncoderStates(self._specs, capacity)
        self._x = spec.encoder.input("x", 0)
        self._inputs = [spec.encoder.input(state.name, -1) for state in self._specs]
        self._outputs = [
            spec.encoder.output("encoder_out", 0).name,
            *(state.output for state in self._specs if state.output is not None),
        ]
        self._content = rewritten_encoder(spec.encoder, spec.precision, device) if rewrite else None
        self._encoder = self._session(1)
        self._fbank = OnnxRuntimeFbank(BatchedFbank(FbankOptions(num_mel_bins=spec.feature_dim)), device)

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def num_workers(self) -> int:
        return self._workers if self.device == "cpu" else 1

    @property
    def max_batch(self) -> int:
        return self._max_batch

    def fbank(self, frames: Floats) -> Floats:
        return self._fbank(frames)

    def encoder(self, x: Floats, slots: Ints, *, alone: bool = False) -> Floats:
        session = self._whole_machine_encoder if alone else self._encoder
        batches = [np.arange(len(slots))] if self._batches else np.arange(len(slots))[:, None]
        results = [self._run(session, x[rows], slots[rows]) for rows in batches]
        for rows, (_, states) in zip(batches, results, strict=True):  # when nothing can fail any more
            self._states.scatter(slots[rows], states)
        return np.concatenate([encoder_out for encoder_out, _ in results])

    def reset(self, slot: int) -> None:
        self._states.reset(np.array([slot]))

    def _run(self, session: onnxruntime.InferenceSession, x: Floats, slots: Ints) -> tuple[Floats, list[NDArray[Any]]]:
        """encoder_out and the next states."""
        states = self._states.gather(slots)
        encoder_out, *returned = run(session, self._outputs, [(self._x, x), *zip(self._inputs, states, strict=True)])
        outputs = iter(returned)
        return encoder_out.astype(np.float32, copy=False), [
            next(outputs) if spec.output is not None else state + spec.increment
            for spec, state in zip(self._specs, states, strict=True)
        ]

    def _session(self, threads: int) -> onnxruntime.InferenceSession:
        return new_session(
            self.spec.encoder.file,
            self.device,
            threads,
            self._content,
            few_shapes=True,
            precision=self.spec.precision,
        )

    @cached_property
    def _whole_machine_encoder(self) -> onnxruntime.InferenceSession:
        """Loaded when it is first asked for: a service of many streams never does."""
        return self._encoder if self.device != "cpu" or self._threads == 1 else self._session(self._threads)

    @property
    def _batches(self) -> bool:
        """Whether the export has a dynamic batch axis."""
        return not isinstance(self._x.shape[0], int)
