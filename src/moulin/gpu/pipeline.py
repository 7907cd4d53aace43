"""Waveforms in host memory to hypotheses; the GPU does not wait for the host, nor the encoder for the search.

    host     pack 1   pack 2   pack 3   read 1   read 2 ...
    copies            1        2        3
    encoder                    fbank+encoder 1   fbank+encoder 2 ...
    searches                                     1                2 ...

Utterances of similar length go together in micro-batches, the longest first; each goes through three streams, and
results are read when they are there. Copies are between pinned memory and the card, and run beside everything else. A
search keeps few multiprocessors busy for long, so several run beside each other and beside the encoder. Each utterance
is searched with options of its own: a micro-batch with greedy rows and rows with beams is encoded once and searched by
both kernels, beside each other.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moulin.arrays import Bools, Floats, Ints, Ints32
from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import MIN_FRAMES
from moulin.decoding.context_graph import ContextGraph
from moulin.decoding.found import Hypothesis
from moulin.decoding.options import DecodingOptions
from moulin.decoding.row_graphs import NO_GRAPHS
from moulin.decoding.row_options import RowOptions
from moulin.gpu.arena import AutomatonArena
from moulin.gpu.background import in_background
from moulin.gpu.blank_skip import blank_log_probs, skip_blanks
from moulin.gpu.encoder import GpuEncoder
from moulin.gpu.graphs import EncoderGraphs, bucket_frames, bucket_rows, most_rows, power_of_two
from moulin.gpu.kernels.beam import beam_search
from moulin.gpu.kernels.fbank import FbankMatrices, fbank
from moulin.gpu.kernels.greedy import greedy
from moulin.gpu.kernels.searches import NUM_OPTIONS, FoundTensors, SearchOptions, write_options
from moulin.gpu.predictor import Predictor
from moulin.start_progress import tell

Samples = Floats | NDArray[np.int16]

_OPTIONS = slice(3, 3 + NUM_OPTIONS)  # rows of the description of a micro-batch: starts and lengths, these, counts

MAX_BATCH_FRAMES = 65_536
"""Feature frames of a micro-batch: beyond, larger ones are no faster."""

_MIN_BATCH_FRAMES = 16_384
"""Below this, more utterances cost hardly more time: it does not pay to split them for overlap."""

_CAPTURE_PAUSE_SEC = 0.02
_IDLE_SEC = 0.2
"""The time without a micro-batch after which a graph may be captured, which holds up those that come meanwhile."""

_SEARCHES = 4  # beside each other
_PACKED_AHEAD = 3  # micro-batches that wait in pinned memory for the GPU
_UNDER_WAY = 8  # micro-batches that the GPU may have before it
_OVERLAPPING = 4  # micro-batches that a large batch is split into at least


@dataclass(frozen=True, slots=True)
class _Packed:
    """A micro-batch whose waveforms are one after the other in pinned memory, once all `copies` are done."""

    positions: Sequence[int]
    samples: Tensor
    lengths: Ints
    copies: Sequence[Future[None]]


class Rows(NamedTuple):
    """The description of a micro-batch's B rows, on the host or on the card."""

    memory: Tensor
    """int32 [11 + S, B rounded up to whole 16 bytes]: all others are views of it, and take one copy."""
    starts: Tensor
    """int64 [B]: position of each row's first sample."""
    lengths: Tensor
    """int32 [B]: samples of each row."""
    options: SearchOptions
    counts: Tensor
    """int32 [S, B]: frames at the encoder's S frame rates."""

    @classmethod
    def empty(cls, rows: int, rates: int, *, pinned: bool = False, device: torch.device | None = None) -> Rows:
        size = _OPTIONS.stop + rates, -(-rows // 4) * 4
        memory = torch.empty(size, dtype=torch.int32, device=device, pin_memory=pinned)
        return cls.of(memory, rows)

    @classmethod
    def of(cls, memory: Tensor, rows: int) -> Rows:
        """The parts of `memory`."""
        starts = memory[:2].view(-1).view(torch.int64)
        options = SearchOptions.of(memory[_OPTIONS, :rows])
        return cls(memory, starts[:rows], memory[2, :rows], options, memory[_OPTIONS.stop :, :rows])

    def write_options(self, options: RowOptions, roots: Ints32) -> None:
        """Write the options of all rows, on the host; `roots` [B, 2] are those of their graphs."""
        write_options(self.memory[_OPTIONS].numpy(), options, roots)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A micro-batch that the GPU works on."""

    positions: Sequence[int]
    beams: Ints32
    """[N]: the beam of each utterance."""
    wants_others: Bools
    """[N]: of which the hypotheses beside the best are wanted."""
    found: FoundTensors
    """The result in pinned memory, complete once `done`."""
    peaks: Tensor
    """float32 [B], in pinned memory too."""
    done: torch.cuda.Event

    def is_done(self) -> bool:
        return bool(self.done.query())  # type: ignore[no-untyped-call]


Result = Callable[[Sequence[int], Sequence[Hypothesis], Sequence[float]], None]
"""A callback (positions, hypotheses, peaks): the best hypothesis of each of these waveforms, with the others where its
options want them, and its largest absolute sample (int16 divided by 32768). The peak is NaN where a sample is NaN;
then, and where it is out of scale, ignore the hypothesis. Where the score is not finite and the peak is, the encoder's
precision was not enough."""


class GpuPipeline:
    """Features, encoder and search of one model on one GPU. Safe to call from several threads."""

    def __init__(
        self,
        encoder: GpuEncoder,
        predictor: Predictor,
        *,
        device: torch.device,
        tail_samples: int,
        max_batch_frames: int = MAX_BATCH_FRAMES,
        first_batch_frames: int = MAX_BATCH_FRAMES,
        cuda_graphs: bool = True,
        threads: int = 8,
        arena: AutomatonArena | None = None,
    ) -> None:
        """`tail_samples` zeros are appended to every utterance; `threads` pack waveforms. `arena` holds the server's
        hotwords and language model, if it has any. The GPU waits for the first micro-batch to be packed, which is
        sooner the fewer `first_batch_frames` of features it may have.
        """
        self._encoder, self._predictor, self._device = encoder, predictor, device
        self._tail, self._max_batch_frames = tail_samples, max_batch_frames
        self.first_batch_frames = first_batch_frames
        self._matrices = FbankMatrices(FbankOptions(num_mel_bins=encoder.feature_dim), device)
        self._graphs = EncoderGraphs(
            encoder,
            device=device,
            max_batch_frames=max_batch_frames,
            enabled=cuda_graphs,
        )
        streams: list[Any] = [torch.cuda.Stream(device) for _ in range(2 + _SEARCHES)]  # type: ignore[no-untyped-call]
        self._copying, self._encoding = streams[:2]
        self._arena = arena or AutomatonArena(device)
        self._searched: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._searches = itertools.cycle(streams[2:])
        self._submitting = threading.Lock()
        self._last_call = 0.0
        self._to_capture: list[int] = []
        """Frames of single utterances whose graphs are still to be captured, the largest last."""
        self._end_captures: Callable[[], None] = lambda: None
        self._packers, self._num_packers = ThreadPoolExecutor(threads, thread_name_prefix="moulin-pack"), threads

    def __call__(self, waveforms: Sequence[Samples], options: RowOptions, result: Result) -> None:
        """Calls `result` with the waveforms of a micro-batch, each searched with its row of `options`, as the GPU
        finishes them. Waveforms are 16 kHz, all float32 in [-1, 1] or all int16, and not empty. A faulty one does not
        affect the others.
        """
        with torch.cuda.device(self._device), torch.inference_mode():
            sizes = [0 if graph is None else len(graph) + 1 for graph in options.graphs[:, 1].tolist()]
            plan = self.plan([len(waveform) for waveform in waveforms], sizes)
            packed = deque(self._pack(batch, waveforms) for batch in itertools.islice(plan, _PACKED_AHEAD))
            pending: deque[_Pending] = deque()
            while packed:
                pending.append(self._submit(packed.popleft(), options))
                packed.extend(self._pack(batch, waveforms) for batch in itertools.islice(plan, 1))
                # Read finished micro-batches while the GPU does the others.
                while pending and (pending[0].is_done() or len(pending) > _UNDER_WAY):
                    self._read(pending.popleft(), result)
            while pending:
                self._read(pending.popleft(), result)

    def plan(self, lengths: Sequence[int], graph_rows: Sequence[int] | None = None) -> Iterator[list[int]]:
        """Positions of utterances of `lengths` samples in micro-batches of similar length, the longest first. Their
        requests' graphs, of `graph_rows`, fit into the arena, each of them in any case."""
        frames = [self._frames(length) for length in lengths]
        share = max(_MIN_BATCH_FRAMES, sum(frames) // _OVERLAPPING)
        usual = min(self._max_batch_frames, share)
        limit = min(usual, self.first_batch_frames)
        batch: list[int] = []
        taken = 0
        for position in sorted(range(len(frames)), key=frames.__getitem__, reverse=True):
            of_graph = graph_rows[position] if graph_rows else 0
            is_full = batch and len(batch) == most_rows(limit // bucket_frames(frames[batch[0]]))
            if is_full or (batch and taken + of_graph > self._arena.rows):
                yield batch
                batch, limit, taken = [], usual, 0
            batch.append(position)
            taken += of_graph
        if batch:
            yield batch

    def warm_up(self, longest_sec: float) -> None:
        """Load the kernels, for beams the default one's, with and without hotwords, and capture the graph of a single
        utterance of `longest_sec`; those of shorter ones follow while nothing else is to be done."""
        tell("loading kernels")
        second: tuple[Samples, ...] = (np.zeros(16_000, np.float32), np.zeros(16_000, np.int16))
        some = [DecodingOptions(), DecodingOptions(method="modified_beam_search")]
        hotwords = ContextGraph.of({(1, 2): 1.0})
        for waveform in second:
            for graphs in (NO_GRAPHS, (None, hotwords)):
                self([waveform] * 2, RowOptions.of(some, [NO_GRAPHS, graphs]), lambda *_: None)
        if not self._graphs.enabled:
            return
        # The largest first: smaller ones find room in its memory.
        longest = bucket_frames(self._frames(round(longest_sec * 16_000)))
        self._to_capture = [frames for frames in range(1, longest + 1) if bucket_frames(frames) == frames]
        self._capture_next()
        self._end_captures = in_background(
            self, GpuPipeline._capture_when_idle, pause_sec=_CAPTURE_PAUSE_SEC, name="moulin-graphs"
        )

    def capture_all(self) -> None:
        """Capture the graphs that are still to come, so that nothing else happens during a measurement."""
        self._end_captures()
        while self._to_capture:
            self._capture_next()

    def close(self) -> None:
        self._end_captures()
        self._packers.shutdown()

    def _capture_when_idle(self) -> bool:
        """Capture another graph, unless there was something to do just now. Returns whether there are more to come."""
        if time.monotonic() - self._last_call > _IDLE_SEC:
            self._capture_next()
        return bool(self._to_capture)

    def _capture_next(self) -> None:
        with self._submitting, torch.inference_mode(), torch.cuda.stream(self._encoding):
            self._graphs.warm_up(1, self._to_capture.pop())
            self._encoding.synchronize()

    def _frames(self, length: int) -> int:
        return max(self._matrices.num_frames(length + self._tail), MIN_FRAMES)

    def _submit(self, packed: _Packed, options: RowOptions) -> _Pending:
        chosen = options.take(np.array(packed.positions))
        on_host, frames = self._rows(packed.lengths)
        for copied in packed.copies:
            copied.result()

        with self._submitting:
            self._last_call = time.monotonic()
            with torch.cuda.stream(self._copying):
                searched = torch.cuda.Event()  # type: ignore[no-untyped-call]
                roots = self._arena.place(chosen.graphs, searched)
                on_host.write_options(*_filled_up(chosen, roots, len(on_host.lengths)))
                rows = Rows.of(on_host.memory.to(self._device, non_blocking=True), len(on_host.lengths))
                samples = packed.samples.to(self._device, non_blocking=True)
            with torch.cuda.stream(self._encoding):
                self._encoding.wait_stream(self._copying)
                for tensor in (rows.memory, samples):
                    tensor.record_stream(self._encoding)
                features, counts = self._graphs.inputs(len(rows.lengths), frames)
                counts.copy_(rows.counts)
                peaks = torch.zeros(len(rows.lengths), device=self._device)
                fbank(samples, rows.starts, rows.lengths, self._tail, frames, self._matrices, features, peaks)
                out = self._graphs.run(features, counts)  # overwritten by the next run
                channels = self._predictor.joiner_dim
                encoder_out = out[..., :channels].clone(memory_format=torch.contiguous_format)
                skips = np.isfinite(chosen.blank_skips).any() and out.shape[2] > channels
                blanks = blank_log_probs(out[..., channels:]) if skips else None
            searching = next(self._searches)
            with torch.cuda.stream(searching):
                searching.wait_stream(self._encoding)
                found = self._search(encoder_out, blanks, rows, chosen, searching)
                peaks.record_stream(searching)
                memory = torch.empty(found.memory.shape, dtype=torch.int32, pin_memory=True)
                memory.copy_(found.memory, non_blocking=True)
                read_peaks = torch.empty(len(peaks), pin_memory=True)
                read_peaks.copy_(peaks, non_blocking=True)
                done = torch.cuda.Event()  # type: ignore[no-untyped-call]
                done.record(searching)
            if roots.any():  # searches run beside each other: the moment when this one and all before it have ended
                self._searched.wait_event(done)
                searched.record(self._searched)
        found = FoundTensors.of(memory, *encoder_out.shape[:2])
        return _Pending(packed.positions, chosen.beams, chosen.wants_others, found, read_peaks, done)

    def _rows(self, lengths: Ints) -> tuple[Rows, int]:
        """The rows of utterances of `lengths` samples, in pinned memory and without their options, and the frames that
        they are filled up to. The batch is filled up with silent utterances of the least length."""
        num_frames = np.array([self._frames(length) for length in lengths.tolist()], dtype=np.int32)
        count, rows = len(lengths), bucket_rows(len(lengths))
        samples, frames = np.zeros(rows, np.int32), np.full(rows, MIN_FRAMES, np.int32)
        samples[:count], frames[:count] = lengths, num_frames
        counts = self._encoder.counts(frames)
        on_host = Rows.empty(rows, len(counts), pinned=self._device.type == "cuda")
        on_host.starts.numpy()[:] = np.cumsum(samples) - samples
        on_host.lengths.numpy()[:] = samples
        on_host.counts.numpy()[:] = counts
        return on_host, bucket_frames(int(num_frames.max()))

    def _search(
        self, encoder_out: Tensor, blanks: Tensor | None, rows: Rows, options: RowOptions, searching: Any
    ) -> FoundTensors:
        """Search on the stream `searching`, the current one; where a batch has rows of both kinds, greedy search runs
        beside it on another stream. With the log-probabilities `blanks` [B, T] frames are skipped as `options` say."""
        batch, frames, _ = encoder_out.shape
        places = power_of_two(options.places) if options.wants_others.any() else 1
        found, lengths, spoken = FoundTensors.empty(batch, frames, places, self._device), rows.counts[-1], None
        if blanks is not None:
            blanks.record_stream(searching)
            encoder_out.record_stream(searching)
            spoken = skip_blanks(encoder_out, blanks, lengths, rows.options.blank_skips)
            encoder_out, lengths, _ = spoken
        arguments = encoder_out, lengths, rows.options, self._predictor, found
        by_beams, greedily = bool(options.beams.any()), not options.beams.all()
        beside = searching
        if by_beams and greedily:
            beside = next(self._searches)
            beside.wait_stream(searching)
        for tensor in (encoder_out, lengths, rows.memory):
            tensor.record_stream(searching)
            tensor.record_stream(beside)
        if by_beams:
            biased = options.graphs.any() or options.lm_scales.any()
            beam_search(*arguments, self._arena.tables if biased else None, beam=options.places)
        if greedily:
            with torch.cuda.stream(beside):
                greedy(*arguments)
            searching.wait_stream(beside)
        if spoken is not None:
            spoken.give_their_numbers(found)
        return found

    def _pack(self, batch: Sequence[int], waveforms: Sequence[Samples]) -> _Packed:
        """Start to copy the samples of a micro-batch into pinned memory; too short ones get zeros."""
        least = MIN_FRAMES * self._matrices.shift - self._tail
        lengths = np.array([max(len(waveforms[position]), least) for position in batch], dtype=np.int64)
        ends = np.cumsum(lengths).tolist()
        dtype = torch.int16 if waveforms[batch[0]].dtype == np.int16 else torch.float32
        samples = torch.empty(ends[-1], dtype=dtype, pin_memory=True)
        array = samples.numpy()

        def copy(rows: range) -> None:
            for row in rows:
                end, waveform = ends[row], waveforms[batch[row]]
                start = end - int(lengths[row])
                array[start : start + len(waveform)] = waveform
                array[start + len(waveform) : end] = 0

        share = -(-len(batch) // self._num_packers)
        copies = [
            self._packers.submit(copy, range(first, min(first + share, len(batch))))
            for first in range(0, len(batch), share)
        ]
        return _Packed(batch, samples, lengths, copies)

    def _read(self, pending: _Pending, result: Result) -> None:
        pending.done.synchronize()
        found = pending.found.read(pending.beams).ranked(self._predictor.context_size)
        count = len(pending.positions)  # behind them, silence fills the batch up
        hypotheses = found.hypotheses(pending.wants_others)[:count]
        result(pending.positions, hypotheses, pending.peaks[:count].tolist())


def _filled_up(options: RowOptions, roots: Ints32, rows: int) -> tuple[RowOptions, Ints32]:
    """The options and roots of as many rows; those that fill a batch up have the last utterance's."""
    which = np.minimum(np.arange(rows), len(options) - 1)
    return options.take(which), roots[which]
