"""What `GpuStreamRunner` does, stream by stream with plain modules: its definition."""

from __future__ import annotations

import numpy as np
import torch

from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import CheckpointSpec
from moulin.decoding.greedy import GreedyState, advance_greedy, start_greedy
from moulin.decoding.network import Floats, Ints
from moulin.decoding.options import DecodingOptions
from moulin.engine.torch_stream_runner import TorchStreamRunner
from moulin.gpu.kernels.fbank import FbankMatrices
from moulin.gpu.kernels.stream_fbank import stream_fbank_plain
from moulin.streaming.inbox import ring_samples
from moulin.streaming.turns import Said, Turns
from moulin.streaming.window_layout import WindowLayout


class PlainStepper(TorchStreamRunner):
    """A `StreamStepper`."""

    def __init__(self, spec: CheckpointSpec, capacity: int) -> None:
        super().__init__(spec, capacity=capacity)
        assert spec.streaming is not None
        fbank = FbankOptions(num_mel_bins=spec.feature_dim)
        self.windows = WindowLayout.of(fbank, spec.streaming.window_frames, spec.streaming.chunk_frames)
        self.inbox: Floats = np.zeros((capacity + 1, ring_samples(self.windows)), np.float32)
        self.chunk_encoder_frames = spec.streaming.chunk_frames // 4
        self._matrices = FbankMatrices(fbank, torch.device("cpu"))
        self._searches: dict[int, GreedyState] = {}

    def step(self, turns: Turns, encoder_out_of: Ints) -> Said:
        for slot in turns.slots[turns.numbers == 0]:
            self.reset(int(slot))
        slots, numbers, heard = (torch.from_numpy(x) for x in (turns.slots, turns.numbers, turns.heard))
        windows = stream_fbank_plain(
            torch.from_numpy(self.inbox), slots, numbers, heard, self.windows, self._matrices
        ).numpy()
        encoder_out = self.encoder(windows, turns.slots)
        count, frames = encoder_out.shape[:2]
        said = Said(
            np.zeros(count, np.int32),
            np.zeros((count, frames), np.int32),
            np.zeros((count, frames), np.int32),
            np.zeros((count, frames), np.float32),
            np.zeros(count, np.float32),
            encoder_out[encoder_out_of],
        )
        for row, slot in enumerate(turns.slots.tolist()):
            options = DecodingOptions(
                blank_penalty=float(turns.blank_penalties[row]), temperature=float(1 / turns.sharpness[row])
            )
            if turns.fresh[row]:
                (self._searches[slot],) = start_greedy(self, 1, options)
            state = self._searches[slot]
            state.num_frames = 0
            state.drop(len(state.tokens))
            advance_greedy(self, [state], encoder_out[row : row + 1], np.array([frames]), options)
            found = len(state.tokens)
            said.counts[row], said.scores[row] = found, state.score
            said.tokens[row, :found], said.frames[row, :found] = state.tokens, state.frames
            said.log_probs[row, :found] = state.log_probs
        return said
