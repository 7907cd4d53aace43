"""A step of many streams on a GPU, from samples in host memory to tokens there, as one CUDA graph.

    inbox (pinned, host) ── fetch ─► windows ─► fbank ─► encoder ─► searches ─► outbox (pinned, host)
                                                          │  ▲        │  ▲
                                                     rings by slot  searches by slot

The host writes which streams take part and how far each is, and reads the result. Its work for a step does not depend
on the number of streams, but for arrays of a few numbers a stream.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from moulin.arrays import Floats, Ints, Ints32
from moulin.audio.fbank import FbankOptions
from moulin.decoding.found import Found
from moulin.gpu.arena import AutomatonArena
from moulin.gpu.background import in_background
from moulin.gpu.blank_skip import blank_log_probs, skip_blanks, with_blank
from moulin.gpu.encoder import GpuStreamEncoder
from moulin.gpu.graphs import bucket_rows, most_rows
from moulin.gpu.kernels.beam import stream_beam_search
from moulin.gpu.kernels.fbank import FbankMatrices
from moulin.gpu.kernels.greedy import greedy
from moulin.gpu.kernels.searches import (
    NUM_OPTIONS,
    FoundTensors,
    SearchOptions,
    SlotMemory,
    StreamSearches,
    read_found,
    words,
    write_options,
)
from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.kernels.stream_fbank import stream_fbank
from moulin.gpu.predictor import Predictor
from moulin.gpu.step_graphs import StepGraphs, step_sizes
from moulin.streaming.inbox import ring_samples
from moulin.streaming.turns import Turns
from moulin.streaming.window_layout import WindowLayout

_PAUSE_SEC = 0.25
"""The time between two captures while streams are served; each holds steps up."""


class _Fields(NamedTuple):
    """The input of a step on the card, one value a row; floats lie in the same memory of int32."""

    slots: Tensor
    numbers: Tensor
    heard: Tensor
    fresh: Tensor
    decided: Tensor
    kept: Tensor
    options: SearchOptions

    @classmethod
    def memory(cls, rows: int, device: torch.device, *, pinned: bool = False) -> Tensor:
        return torch.zeros(_OPTIONS + NUM_OPTIONS, rows, dtype=torch.int32, device=device, pin_memory=pinned)

    @classmethod
    def of(cls, memory: Tensor) -> _Fields:
        """The parts of `memory`."""
        slots, numbers, heard, fresh, decided, kept = memory[:_OPTIONS]
        return cls(slots, numbers, heard, fresh, decided, kept, SearchOptions.of(memory[_OPTIONS:]))


_OPTIONS = len(_Fields._fields) - 1  # rows before the options


def _write(fields: Ints32, turns: Turns, roots: Ints32, filling: int) -> None:
    """Copy `turns`, whose graphs are at `roots` [N, 2], to the first rows of `fields` [14, rows], the memory of
    `_Fields` on the host. The other rows fill the batch up: they are in the slot `filling`, without audio."""
    count, at = len(turns.numbers), turns.continuation
    fields[:, count:] = 0
    fields[0, count:] = filling
    fields[_OPTIONS + SearchOptions._fields.index("sharpness"), count:].view(np.float32)[:] = 1.0
    each = at.slots, turns.numbers, turns.heard, at.fresh, at.decided, at.kept
    for field, values in zip(fields, each, strict=False):
        field[:count] = values
    write_options(fields[_OPTIONS:], turns.options, roots)


class GpuStreamPipeline:
    """Features, encoder and searches of streams in `capacity` slots. Safe to call from several threads for different
    streams; steps run one after the other."""

    def __init__(
        self,
        encoder: GpuStreamEncoder,
        predictor: Predictor,
        layout: WindowLayout,
        *,
        capacity: int,
        max_batch: int,
        beam_places: int,
        arena: AutomatonArena,
        device: torch.device,
        cuda_graphs: bool = True,
    ) -> None:
        """The encoder has one slot more, the last, for the rows that fill a batch up. Beams are of at most
        `beam_places`, a power of two. `arena` has room for the graphs of a whole batch."""
        self._encoder, self._predictor, self._layout = encoder, predictor, layout
        self._device, self._filling, self._arena = device, capacity, arena
        self.max_batch = most_rows(max_batch)
        pinned = device.type == "cuda"
        self._rings = torch.zeros(capacity + 1, ring_samples(layout), pin_memory=pinned)
        self._matrices = FbankMatrices(FbankOptions(num_mel_bins=encoder.feature_dim), device)
        self._searches = SlotMemory.zeros(capacity + 1, beam_places, device, predictor.context_dtype)
        self._turns, self._no_turns = (_Fields.memory(self.max_batch, device) for _ in range(2))
        fields = _Fields.of(self._no_turns)  # all rows fill the batch up
        fields.slots.fill_(capacity)
        fields.options.sharpness.fill_(1.0)
        self._lengths = torch.full((self.max_batch,), encoder.out_frames, dtype=torch.int32, device=device)
        # The host's memory for turns and results, and the event that the card records when results are there.
        self._turns_here = _Fields.memory(self.max_batch, torch.device("cpu"), pinned=pinned)
        self._found_here = torch.zeros(
            beam_places * words(self.max_batch, encoder.out_frames), dtype=torch.int32, pin_memory=pinned
        )
        # A blocking event: the waiting thread sleeps instead of spinning, for other processes need the core.
        self._done: Any = torch.cuda.Event(blocking=True) if pinned else None  # type: ignore[no-untyped-call]
        self._stepping = threading.Lock()
        self._stream: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._graphs: StepGraphs[tuple[Tensor, Tensor]] | None = None
        if device.type == "cuda" and cuda_graphs:
            self._graphs = StepGraphs(self.max_batch)
            with torch.inference_mode(), torch.cuda.stream(self._stream):
                self._turns.copy_(self._no_turns)
                self._graphs.capture_first(self._compute)
                torch.cuda.synchronize(device)
            in_background(self, GpuStreamPipeline._capture_next, pause_sec=_PAUSE_SEC, name="moulin-graphs")

    @property
    def rings(self) -> Floats:
        """The rings of the streams' audio, float32 [capacity + 1, ring], pinned; see `stream_fbank`."""
        rings: Floats = self._rings.numpy()
        return rings

    def step(self, turns: Turns, encoder_out_of: Ints) -> tuple[Found, Floats]:
        """Take the streams one chunk further. Returns the result, with the places that `turns.options` need, and the
        encoder_out float32 [M, T', J] of the rows `encoder_out_of` [M], of a model with a CTC head with the channel of
        blank."""
        places = turns.options.places
        with self._stepping, torch.inference_mode(), torch.cuda.stream(self._stream):
            rows = self._send(turns)
            memory, encoded = self._run(rows)
            # Places that no row needs are not copied.
            here = self._found_here[: places * memory.shape[1]].view(places, -1)
            here.copy_(memory[:places], non_blocking=True)
            if self._done is not None:
                self._done.record()
                self._done.synchronize()
            wanted = self._bring(encoded, encoder_out_of)
            memory_here = here.numpy().copy()  # the next step writes there
        return read_found(memory_here, rows, self._encoder.out_frames, turns.options.beams), wanted

    def capture_all(self) -> None:
        """Capture the graphs that are not there yet, so that nothing else happens during a measurement."""
        while self._capture_next():
            pass

    def run_all_sizes(self) -> None:
        """Launch the kernels of steps of all sizes, without graphs and for no stream."""
        for rows in step_sizes(self.max_batch):
            self.run_size(rows)

    def run_size(self, rows: int) -> None:
        """Launch the kernels of a step of `rows`, without a graph and for no stream."""
        with torch.inference_mode():
            self._turns.copy_(self._no_turns)
            self._compute(rows)

    def replay_ms(self, rows: int, rounds: int = 20) -> float:
        """The GPU's time for a step of `rows` streams, one of `step_sizes`; for benchmarks."""
        assert self._graphs is not None
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        with self._stepping, torch.inference_mode(), torch.cuda.stream(self._stream):
            self._turns.copy_(self._no_turns)
            self._graphs.capture(rows, self._compute)
            _Fields.of(self._turns).slots.copy_(torch.arange(self.max_batch) % (self._filling + 1))
            start.record()
            for _ in range(rounds):
                self._graphs.replay(rows)
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / rounds

    def _send(self, turns: Turns) -> int:
        """Send `turns` to the card. Returns the number of rows, with those that fill the batch up."""
        count = len(turns.numbers)
        rows = bucket_rows(count) if self._graphs is None else self._graphs.size_for(count)
        roots = self._arena.place(turns.options.graphs)
        _write(self._turns_here.numpy()[:, :rows], turns, roots, self._filling)
        self._turns.copy_(self._turns_here, non_blocking=True)
        return rows

    def _run(self, rows: int) -> tuple[Tensor, Tensor]:
        return self._compute(rows) if self._graphs is None else self._graphs.replay(rows)

    def _compute(self, rows: int) -> tuple[Tensor, Tensor]:
        """The memory of a `FoundTensors`, and the encoder's frames [rows, T', channels]."""
        turns, frames = _Fields.of(self._turns[:, :rows]), self._encoder.out_frames
        windows = stream_fbank(self._rings, turns.slots, turns.numbers, turns.heard, self._layout, self._matrices)
        encoded = self._encoder(windows, Chunks(turns.slots, turns.numbers))
        found = FoundTensors.empty(rows, frames, self._searches.scores.shape[1], self._device)
        streams = StreamSearches(turns.slots, turns.fresh, turns.decided, turns.kept, self._searches)
        encoder_out, lengths, spoken, width = encoded, self._lengths[:rows], None, self._predictor.joiner_dim
        if encoded.shape[2] > width:  # a CTC head's logits are behind
            blanks = blank_log_probs(encoded[..., width:])
            spoken = skip_blanks(encoded[..., :width], blanks, lengths, turns.options.blank_skips)
            encoder_out, lengths, _ = spoken
        arguments = encoder_out, lengths, turns.options, self._predictor, found, streams
        greedy(*arguments)
        stream_beam_search(*arguments, self._arena.tables)
        if spoken is not None:
            spoken.give_their_numbers(found)
        return found.memory, encoded

    def _bring(self, encoded: Tensor, rows: Ints) -> Floats:
        """Copy the frames of `rows` [M] to the host, for searches there: few, if any."""
        if not len(rows):
            return np.zeros((0, encoded.shape[1], self._predictor.joiner_dim), np.float32)
        of_rows = encoded[torch.from_numpy(rows).to(self._device)]
        some: Floats = with_blank(of_rows, self._predictor.joiner_dim).cpu().numpy()
        return some

    def _capture_next(self) -> bool:
        """Capture another graph, between steps. Returns whether there are more to come."""
        if self._graphs is None or not self._graphs.lacks_any:
            return False
        with self._stepping, torch.inference_mode(), torch.cuda.stream(self._stream):
            self._turns.copy_(self._no_turns)
            self._graphs.capture_next(self._compute)
            self._stream.synchronize()
        return self._graphs.lacks_any
