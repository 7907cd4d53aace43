"""Streaming runner on PyTorch, for checkpoints as they are."""

from __future__ import annotations

import torch

from moulin.arrays import Floats, Ints
from moulin.bundle.checkpoint_spec import layout_of
from moulin.bundle.spec import ModelSpec
from moulin.encoders.ctc_model import CtcModel
from moulin.encoders.transducer import Transducer
from moulin.engine.batching import CPU_BATCH_STREAMS, GPU_BATCH_STREAMS
from moulin.engine.device import gpu_index
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_runner import check_counts
from moulin.engine.torch.fbank import TorchFbank
from moulin.engine.torch.prediction import TorchNetworks


class TorchStreamRunner(TorchNetworks):
    """A `StreamRunner` whose encoder runs eagerly, with the states of all streams, [capacity, ...], on its device."""

    def __init__(
        self,
        spec: ModelSpec,
        model: Transducer | CtcModel,
        *,
        capacity: int,
        device: str = "cpu",
        threads: int | None = None,
        max_batch: int | None = None,
    ) -> None:
        """`capacity` is the limit on open streams, `max_batch` on streams in an encoder batch.

        Raises BundleError for a model that cannot stream, OptionsError, and EngineError as `TorchNetworks` does.
        """
        check_counts({"streams": capacity, "streams in a batch": max_batch})
        super().__init__(spec, model, device=device, threads=threads)
        usual_max_batch = CPU_BATCH_STREAMS if gpu_index(device) is None else GPU_BATCH_STREAMS
        self.limits = StepLimits(capacity, max_batch or usual_max_batch)
        self._fbank = TorchFbank(spec.feature_dim, self.device)
        layout = layout_of(model, spec.file)
        self._states = self._encoder.initial_states(layout, capacity, self.device)

    def fbank(self, frames: Floats) -> Floats:
        with self._computing():
            return self._fbank(frames)

    def encoder(self, x: Floats, slots: Ints) -> Floats:
        with self._computing():
            rows = torch.from_numpy(slots).to(self.device)
            states = [state[rows] for state in self._states]
            encoder_out, following = self._encoder.streaming_forward(torch.from_numpy(x).to(self.device), states)
            projected = self._projected(encoder_out)
            for state, new in zip(self._states, following, strict=True):  # when nothing can fail any more
                state[rows] = new
            return projected

    def reset(self, slots: Ints) -> None:
        with self._computing():
            rows = torch.from_numpy(slots).to(self.device)
            for state in self._states:
                state[rows] = 0
