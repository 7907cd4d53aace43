"""What `GpuStreamRunner` does, stream by stream with plain modules: its definition."""

from __future__ import annotations

import numpy as np
import torch

from moulin.arrays import Floats, Ints
from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import CheckpointSpec
from moulin.bundle.transducer import load_transducer
from moulin.decoding.greedy import GreedyState, advance_greedy, start_greedy
from moulin.decoding.modified_beam_search import (
    BeamState,
    _Emission,
    advance_modified_beam_search,
    start_modified_beam_search,
)
from moulin.decoding.options import DecodingOptions
from moulin.engine.torch.stream_runner import TorchStreamRunner
from moulin.gpu.kernels.fbank import FbankMatrices
from moulin.gpu.kernels.stream_fbank import stream_fbank_plain
from moulin.streaming.inbox import ring_samples
from moulin.streaming.turns import Said, SaidByBeams, Turns
from moulin.streaming.window_layout import WindowLayout


class PlainStepper(TorchStreamRunner):
    """A `StreamStepper`."""

    def __init__(self, spec: CheckpointSpec, capacity: int) -> None:
        super().__init__(spec, load_transducer([spec.checkpoint]), capacity=capacity)
        assert spec.streaming is not None
        fbank = FbankOptions(num_mel_bins=spec.feature_dim)
        self.windows = WindowLayout.of(fbank, spec.streaming.window_frames, spec.streaming.chunk_frames)
        self.inbox: Floats = np.zeros((capacity + 1, ring_samples(self.windows)), np.float32)
        self.chunk_encoder_frames = spec.streaming.chunk_frames // 4
        self._matrices = FbankMatrices(fbank, torch.device("cpu"))
        self.beam_places = 4
        self._searches: dict[int, GreedyState] = {}
        self._beams: dict[int, BeamState] = {}

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
            self._by_beams(turns, encoder_out),
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

    def _by_beams(self, turns: Turns, encoder_out: Floats) -> SaidByBeams:
        rows = np.flatnonzero(turns.beams)
        size = (len(rows), self.beam_places)
        frames = encoder_out.shape[1]
        said = SaidByBeams(
            np.zeros(size, np.int32),
            np.zeros(size, np.int32),
            np.zeros((*size, frames), np.int32),
            np.zeros((*size, frames), np.int32),
            np.zeros((*size, frames), np.float32),
            np.full(size, -np.inf, np.float32),
        )
        for number, row in enumerate(rows.tolist()):
            slot, beam = int(turns.slots[row]), int(turns.beams[row])
            options = DecodingOptions(
                "modified_beam_search",
                beam,
                blank_penalty=float(turns.blank_penalties[row]),
                temperature=float(1 / turns.sharpness[row]),
            )
            if turns.fresh[row]:
                (self._beams[slot],) = start_modified_beam_search(self, 1, options)
            state = self._beams[slot]
            if turns.decided[row] >= 0:
                state.beam.put(slice(1), state.beam.place(int(turns.decided[row])))
                state.beam.scores[0] = [0.0] + [-np.inf] * (beam - 1)
                state.beam.num_tokens[:] = turns.kept[row]
            # Each place begins with a mark of its own, from which the origins are read.
            state.settled, state.settled_until, state.num_frames = [], None, 0
            state.chains = [_Emission(None, -1 - place, -1, 0.0) for place in range(beam)]
            advance_modified_beam_search(self, [state], encoder_out[row : row + 1], np.array([frames]), options)
            for place in np.flatnonzero(np.isfinite(state.beam.scores[0])).tolist():
                mark, *emissions = [*state.settled, *reversed(state._open(place))]
                said.origins[number, place] = -1 - mark.token
                said.counts[number, place] = len(emissions)
                for index, emission in enumerate(emissions):
                    said.tokens[number, place, index] = emission.token
                    said.frames[number, place, index] = emission.frame
                    said.log_probs[number, place, index] = emission.log_prob
            said.scores[number, :beam] = state.beam.scores[0]
        return said
