"""A step of many streams on a GPU, from samples in host memory to tokens there, as one CUDA graph.

    inbox (pinned, host) ── fetch ─► windows ─► fbank ─► encoder ─► searches ─► outbox (pinned, host)
                                                          │  ▲        │  ▲
                                                     rings by slot  contexts and beams by slot

The host says which streams take part and how far each is, and reads what they said: what it does for a step does not
depend on how many they are, but for arrays of a few numbers a stream.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moulin.arrays import Floats, Ints
from moulin.audio.fbank import FbankOptions
from moulin.gpu.graphs import bucket_rows, capture, most_rows
from moulin.gpu.kernels.beam import Beams, FoundByBeams, stream_beam_search
from moulin.gpu.kernels.fbank import FbankMatrices
from moulin.gpu.kernels.greedy import Found, GoingOn, greedy
from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.kernels.stream_fbank import stream_fbank
from moulin.gpu.predictor import Predictor
from moulin.gpu.stream_zipformer2 import GpuStreamZipformer2
from moulin.streaming.inbox import ring_samples
from moulin.streaming.turns import Said, SaidByBeams, Turns
from moulin.streaming.window_layout import WindowLayout


class _Fields:
    """Rows of what the host tells the card of a step."""

    SLOT, NUMBER, HEARD, FRESH, BLANK_PENALTY, SHARPNESS, BEAM, DECIDED, KEPT = range(9)
    COUNT = 9


class GpuStreamPipeline:
    """Features, encoder and searches of streams in `capacity` slots. Safe to call from several threads, for
    different streams: one step after the other."""

    def __init__(
        self,
        encoder: GpuStreamZipformer2,
        predictor: Predictor,
        layout: WindowLayout,
        *,
        feature_dim: int,
        capacity: int,
        max_batch: int,
        device: torch.device,
        unk_id: int,
        beam_places: int,
        cuda_graphs: bool = True,
    ) -> None:
        """The encoder has one slot more, the last, for what fills a batch up. Beams are of at most `beam_places`, a
        power of two."""
        self._encoder, self._predictor, self._layout, self._unk_id = encoder, predictor, layout, unk_id
        self._device, self._filling = device, capacity
        self.max_batch = most_rows(max_batch)
        self._rings = torch.zeros(capacity + 1, ring_samples(layout), pin_memory=device.type == "cuda")
        self._matrices = FbankMatrices(FbankOptions(num_mel_bins=feature_dim), device)
        self._contexts = torch.zeros(capacity + 1, 2, dtype=torch.int32, device=device)
        self._beams, self._beam_places = Beams.memory(capacity + 1, beam_places, device), beam_places
        self._turns = torch.zeros(_Fields.COUNT, self.max_batch, dtype=torch.int32, device=device)
        self._turns[_Fields.SLOT].fill_(capacity)  # graphs are captured with what fills batches up
        self._turns[_Fields.SHARPNESS].view(torch.float32).fill_(1.0)
        self._lengths = torch.full((self.max_batch,), encoder.out_frames, dtype=torch.int32, device=device)
        # The host's side of both, and what says that the card has done its part.
        pinned = device.type == "cuda"
        self._turns_here = torch.zeros(_Fields.COUNT, self.max_batch, dtype=torch.int32, pin_memory=pinned)
        _, found_size = self._sizes(self.max_batch)
        self._found_here = torch.zeros(found_size, dtype=torch.int32, pin_memory=pinned)
        # Who waits sleeps: other processes need the core, and may have the card meanwhile.
        self._done: Any = torch.cuda.Event(blocking=True) if pinned else None  # type: ignore[no-untyped-call]
        self._stepping = threading.Lock()
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, tuple[Tensor, Tensor, Tensor]]] = {}
        self._stream: Any = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            if cuda_graphs:
                self._capture_all()

    @property
    def inbox(self) -> Floats:
        """Where the streams' audio is put, float32 [capacity + 1, ring]; see `stream_fbank`."""
        rings: Floats = self._rings.numpy()
        return rings

    def step(self, turns: Turns, encoder_out_of: Ints) -> Said:
        """Take the streams one chunk further, and bring the `encoder_out` of the rows `encoder_out_of` [N] too."""
        count = len(turns.slots)
        with self._stepping, torch.inference_mode(), torch.cuda.stream(self._stream):
            rows = self._send(turns)
            found, found_by_beams, encoder_out = self._run(rows)
            greedy_size, both = self._sizes(rows)
            here = self._found_here[:both]
            here[:greedy_size].copy_(found, non_blocking=True)
            if turns.beams.any():
                here[greedy_size:].copy_(found_by_beams, non_blocking=True)
            if self._done is not None:
                self._done.record()
                self._done.synchronize()
            # Copies, both: the next step will be written there.
            greedily = Found.of(here[:greedy_size].clone(), rows, self._encoder.out_frames)
            by_beams = self._said_by_beams(here[greedy_size:], rows, np.flatnonzero(turns.beams))
            wanted = self._bring(encoder_out, encoder_out_of)
        return Said(
            greedily.counts[:count].numpy(),
            greedily.tokens[:count].numpy(),
            greedily.frames[:count].numpy(),
            greedily.log_probs[:count].numpy(),
            greedily.scores[:count].numpy(),
            by_beams,
            wanted,
        )

    def replay_ms(self, rows: int, rounds: int = 20) -> float:
        """The GPU's time for a step of `rows` streams, a size that has a graph; for benchmarks."""
        graph, _ = self._graphs[rows]
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._turns[_Fields.SLOT].copy_(torch.arange(self.max_batch) % (self._filling + 1))
            start.record()
            for _ in range(rounds):
                graph.replay()
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / rounds

    def _send(self, turns: Turns) -> int:
        """Tell the card of the streams. Returns how many there are with what fills the batch up."""
        count = len(turns.slots)
        rows = bucket_rows(count)
        fields = self._turns_here.numpy()
        fields[:, count:rows] = 0  # nobody hears them, so nothing is said
        fields[_Fields.SLOT, count:rows] = self._filling
        fields[_Fields.SLOT, :count] = turns.slots
        fields[_Fields.NUMBER, :count] = turns.numbers
        fields[_Fields.HEARD, :count] = turns.heard
        fields[_Fields.FRESH, :count] = turns.fresh
        floats = fields.view(np.float32)
        floats[_Fields.SHARPNESS, count:rows] = 1
        floats[_Fields.BLANK_PENALTY, :count] = turns.blank_penalties
        floats[_Fields.SHARPNESS, :count] = turns.sharpness
        fields[_Fields.BEAM, :count] = turns.beams
        fields[_Fields.DECIDED, :count] = turns.decided
        fields[_Fields.KEPT, :count] = turns.kept
        self._turns.copy_(self._turns_here, non_blocking=True)
        return rows

    def _run(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        if not self._graphs:
            return self._compute(rows)
        graph, results = self._graphs[rows]
        graph.replay()
        return results

    def _compute(self, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """The memory of what is found greedily and by beams, and encoder_out [rows, T', J]."""
        slots, numbers, heard, fresh, blank_penalties, sharpness, sizes, decided, kept = (
            field[:rows] for field in self._turns
        )
        windows = stream_fbank(self._rings, slots, numbers, heard, self._layout, self._matrices)
        encoder_out = self._encoder(windows, Chunks(slots, numbers))
        going_on = GoingOn(slots, fresh, blank_penalties.view(torch.float32), sharpness.view(torch.float32))
        lengths, predictor, unk_id = self._lengths[:rows], self._predictor, self._unk_id
        found = greedy(
            encoder_out, lengths * (sizes == 0), predictor, unk_id=unk_id, going_on=going_on, contexts=self._contexts
        )
        beams = Beams(*self._beams, sizes, decided, kept)
        by_beams = stream_beam_search(encoder_out, lengths, predictor, going_on, beams, unk_id=unk_id)
        return found.memory, by_beams.memory, encoder_out

    def _sizes(self, rows: int) -> tuple[int, int]:
        """Of what is found greedily, and of that and what is found by beams."""
        frames = self._encoder.out_frames
        greedily = Found.size(rows, frames)
        return greedily, greedily + FoundByBeams.size(rows, self._beam_places, frames)

    def _said_by_beams(self, memory: Tensor, rows: int, of: Ints) -> SaidByBeams:
        """Copies of what was found in the rows `of` [N]."""
        found = FoundByBeams.of(memory, rows, self._beam_places, self._encoder.out_frames)
        return SaidByBeams(
            found.origins.numpy()[of],
            found.counts.numpy()[of],
            found.tokens.numpy()[of],
            found.frames.numpy()[of],
            found.log_probs.numpy()[of],
            found.scores.numpy()[of],
        )

    def _bring(self, encoder_out: Tensor, rows: Ints) -> Floats:
        """What of it is for searches on the host: few streams, if any."""
        if not len(rows):
            return np.zeros((0, *encoder_out.shape[1:]), np.float32)
        some: Floats = encoder_out[torch.from_numpy(rows).to(self._device)].float().cpu().numpy()
        return some

    def _capture_all(self) -> None:
        """Have the graphs of all sizes, that no stream waits for one."""
        rows, pool = 0, None
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            while rows < self.max_batch:
                rows = bucket_rows(rows + 1)
                step = partial(self._compute, rows)
                step()  # which compiles what has to be
                self._graphs[rows] = capture(step, pool)
                pool = self._graphs[rows][0].pool()
            torch.cuda.synchronize(self._device)
