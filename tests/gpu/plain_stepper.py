"""The plain twin of `GpuStepper`, with plain modules and the search in numpy."""

from __future__ import annotations

import numpy as np
import torch

from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import CheckpointSpec
from moulin.bundle.transducer import load_transducer
from moulin.decoding.found import Found
from moulin.engine.host_stepper import HostStepper
from moulin.engine.torch.stream_runner import TorchStreamRunner
from moulin.gpu.kernels.fbank import FbankMatrices
from moulin.gpu.kernels.stream_fbank import stream_fbank_plain
from moulin.streaming.turns import Turns


class PlainStepper(HostStepper):
    """A `Stepper` whose features are those of the GPU kernel's plain twin, of whole windows."""

    def __init__(self, spec: CheckpointSpec, capacity: int) -> None:
        super().__init__(spec, TorchStreamRunner(spec, load_transducer([spec.checkpoint]), capacity=capacity))
        self._matrices = FbankMatrices(FbankOptions(num_mel_bins=spec.feature_dim), torch.device("cpu"))

    def step(self, turns: Turns) -> Found:
        slots = turns.continuation.slots
        self.runner.reset(slots[turns.numbers == 0])
        rings, *at = (torch.from_numpy(x) for x in (self.inbox.rings, slots, turns.numbers, turns.heard))
        windows = stream_fbank_plain(rings, at[0], at[1], at[2], self.inbox.layout, self._matrices)
        encoder_out = self.runner.encoder(windows.numpy(), slots)
        lengths = np.full(len(slots), encoder_out.shape[1])
        return self._searches.advance(turns.continuation, encoder_out, lengths, turns.options)
