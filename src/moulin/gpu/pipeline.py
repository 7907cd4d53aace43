"""From waveforms in host memory to hypotheses, with the GPU never waiting for the host, nor the encoder for the search.

    host     pack 1   pack 2   pack 3   read 1   read 2 ...
    copies            1        2        3
    encoder                    fbank+encoder 1   fbank+encoder 2 ...
    searches                                     1                2 ...

Utterances of similar length go together in micro-batches, the longest first; each goes through three streams, and
results are read when they are there. What is copied is in pinned memory, so that copies run beside everything else. A
search keeps few multiprocessors busy for long: several run beside each other and beside the encoder.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moulin.audio.fbank import FbankOptions
from moulin.decoding.found import Hypothesis
from moulin.decoding.options import DecodingOptions
from moulin.gpu.encoder import GpuEncoder
from moulin.gpu.graphs import EncoderGraphs, bucket_frames, bucket_rows, most_rows
from moulin.gpu.kernels.beam import beam_search
from moulin.gpu.kernels.fbank import FbankMatrices, fbank
from moulin.gpu.kernels.greedy import Found, greedy
from moulin.gpu.predictor import Predictor

Samples = NDArray[np.float32] | NDArray[np.int16]

MAX_BATCH_FRAMES = 65_536
"""Feature frames of a micro-batch: beyond, larger ones are no faster."""

_MIN_BATCH_FRAMES = 16_384
"""Below this, more utterances cost hardly more time: it does not pay to split them for overlap."""

_SEARCHES = 4  # beside each other
_PACKED_AHEAD = 3  # micro-batches that wait in pinned memory for the GPU
_UNDER_WAY = 8  # micro-batches that the GPU may have before it
_OVERLAPPING = 4  # micro-batches that a large batch is split into at least
_MIN_FRAMES = 9  # less leaves nothing after subsampling


@dataclass(frozen=True, slots=True)
class _Packed:
    """A micro-batch whose waveforms are one after the other in pinned memory, once all `copies` are done."""

    positions: Sequence[int]
    samples: Tensor
    lengths: NDArray[np.int64]
    copies: Sequence[Future[None]]


@dataclass(frozen=True, slots=True)
class _Pending:
    """A micro-batch that the GPU works on."""

    positions: Sequence[int]
    found: Found  # in pinned memory, once `done`
    peaks: Tensor  # float32 [rows], likewise
    done: torch.cuda.Event

    def is_done(self) -> bool:
        return bool(self.done.query())  # type: ignore[no-untyped-call]


Result = Callable[[int, Hypothesis, float], None]
"""(position, hypothesis, peak): what was found in a waveform, and its largest absolute sample (int16 divided by
32768). The peak is NaN where a sample is; then, and where it is out of scale, the hypothesis means nothing. Where the
score is not finite and the peak is, the encoder's precision was not enough."""


class GpuPipeline:
    """Features, encoder and search of one model on one GPU. Safe to call from several threads."""

    def __init__(
        self,
        encoder: GpuEncoder,
        predictor: Predictor,
        *,
        device: torch.device,
        unk_id: int,
        tail_samples: int,
        max_batch_frames: int = MAX_BATCH_FRAMES,
        first_batch_frames: int = MAX_BATCH_FRAMES,
        cuda_graphs: bool = True,
        threads: int = 8,
    ) -> None:
        """`tail_samples` zeros are appended to every utterance; `threads` pack waveforms. The GPU waits for the first
        micro-batch to be packed, which is sooner the fewer `first_batch_frames` of features it may have.
        """
        self._encoder, self._predictor, self._device = encoder, predictor, device
        self._unk_id, self._tail, self._max_batch_frames = unk_id, tail_samples, max_batch_frames
        self.first_batch_frames = first_batch_frames
        self._matrices = FbankMatrices(FbankOptions(num_mel_bins=encoder.feature_dim), device)
        self._graphs = EncoderGraphs(
            encoder,
            device=device,
            joiner_dim=predictor.joiner_dim,
            max_batch_frames=max_batch_frames,
            enabled=cuda_graphs,
        )
        streams: list[Any] = [torch.cuda.Stream(device) for _ in range(2 + _SEARCHES)]  # type: ignore[no-untyped-call]
        self._copying, self._encoding = streams[:2]
        self._searches = itertools.cycle(streams[2:])
        self._submitting = threading.Lock()
        self._packers, self._num_packers = ThreadPoolExecutor(threads, thread_name_prefix="moulin-pack"), threads

    def __call__(
        self,
        waveforms: Sequence[Samples],
        options: DecodingOptions,
        result: Result,
    ) -> None:
        """Calls `result` for each waveform, in the order in which the GPU finishes. Waveforms are 16 kHz, all float32
        in [-1, 1] or all int16, and not empty. One with samples that are no audio harms no other.
        """
        with torch.cuda.device(self._device), torch.inference_mode():
            plan = self.plan([len(waveform) for waveform in waveforms])
            packed = deque(self._pack(batch, waveforms) for batch in itertools.islice(plan, _PACKED_AHEAD))
            pending: deque[_Pending] = deque()
            while packed:
                pending.append(self._submit(packed.popleft(), options))
                packed.extend(self._pack(batch, waveforms) for batch in itertools.islice(plan, 1))
                # What is there is read while the GPU does the rest.
                while pending and (pending[0].is_done() or len(pending) > _UNDER_WAY):
                    self._read(pending.popleft(), result)
            while pending:
                self._read(pending.popleft(), result)

    def plan(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Positions of utterances of `lengths` samples in micro-batches of similar length, the longest first."""
        frames = [self._frames(length) for length in lengths]
        share = max(_MIN_BATCH_FRAMES, sum(frames) // _OVERLAPPING)
        usual = min(self._max_batch_frames, share)
        limit = min(usual, self.first_batch_frames)
        batch: list[int] = []
        for position in sorted(range(len(frames)), key=frames.__getitem__, reverse=True):
            if batch and len(batch) == most_rows(limit // bucket_frames(frames[batch[0]])):
                yield batch
                batch, limit = [], usual
            batch.append(position)
        if batch:
            yield batch

    def warm_up(self, longest_sec: float) -> None:
        """Compile all kernels, and capture the graphs of single utterances up to a length."""
        second: tuple[Samples, ...] = (np.zeros(16_000, np.float32), np.zeros(16_000, np.int16))
        for options in (DecodingOptions(), DecodingOptions(method="modified_beam_search")):
            for waveform in second:
                self([waveform], options, lambda *_: None)
        with self._submitting, torch.cuda.device(self._device), torch.inference_mode():
            frames, longest = 0, self._frames(round(longest_sec * 16_000))
            while frames < longest:
                frames = bucket_frames(frames + 1)
                with torch.cuda.stream(self._encoding):
                    self._graphs.warm_up(1, frames)
            torch.cuda.synchronize(self._device)

    def close(self) -> None:
        self._packers.shutdown()

    def _frames(self, length: int) -> int:
        return max(self._matrices.num_frames(length + self._tail), _MIN_FRAMES)

    def _submit(self, packed: _Packed, options: DecodingOptions) -> _Pending:
        batch, lengths = packed.positions, packed.lengths
        num_frames = np.array([self._frames(length) for length in lengths.tolist()], dtype=np.int32)
        rows, frames = bucket_rows(len(batch)), bucket_frames(int(num_frames.max()))
        # What fills the batch up are utterances of the least length, of silence.
        filling = rows - len(batch)
        for copied in packed.copies:
            copied.result()
        starts = np.concatenate([np.cumsum([0, *lengths])[:-1], np.zeros(filling, np.int64)]).astype(np.int64)
        numbers = np.concatenate([lengths, np.zeros(filling, np.int64)]).astype(np.int32)
        counts = self._encoder.counts(np.concatenate([num_frames, np.full(filling, _MIN_FRAMES, np.int32)]))

        with self._submitting:
            with torch.cuda.stream(self._copying):
                on_gpu = [_pinned(array).to(self._device, non_blocking=True) for array in (starts, numbers, counts)]
                samples_on_gpu = packed.samples.to(self._device, non_blocking=True)
            with torch.cuda.stream(self._encoding):
                self._encoding.wait_stream(self._copying)
                for tensor in (*on_gpu, samples_on_gpu):
                    tensor.record_stream(self._encoding)
                features, counts_in = self._graphs.inputs(rows, frames)
                counts_in.copy_(on_gpu[2])
                peaks = torch.zeros(rows, device=self._device)
                fbank(samples_on_gpu, on_gpu[0], on_gpu[1], self._tail, frames, self._matrices, features, peaks)
                encoder_out = self._graphs.run(features, counts_in).clone()
                out_counts = on_gpu[2][-1]
            searching = next(self._searches)
            with torch.cuda.stream(searching):
                searching.wait_stream(self._encoding)
                encoder_out.record_stream(searching)
                on_gpu[2].record_stream(searching)
                peaks.record_stream(searching)
                found = self._search(encoder_out, out_counts, options)
                memory = torch.empty(found.memory.shape, dtype=torch.int32, pin_memory=True)
                memory.copy_(found.memory, non_blocking=True)
                read_peaks = torch.empty(rows, pin_memory=True)
                read_peaks.copy_(peaks, non_blocking=True)
                done = torch.cuda.Event()  # type: ignore[no-untyped-call]
                done.record(searching)
        return _Pending(batch, Found.of(memory, rows, encoder_out.shape[1]), read_peaks, done)

    def _search(self, encoder_out: Tensor, counts: Tensor, options: DecodingOptions) -> Found:
        search = greedy if options.method == "greedy" else partial(beam_search, beam=options.beam)
        return search(
            encoder_out,
            counts,
            self._predictor,
            unk_id=self._unk_id,
            blank_penalty=options.blank_penalty,
            temperature=options.temperature,
        )

    def _pack(self, batch: Sequence[int], waveforms: Sequence[Samples]) -> _Packed:
        """Start to copy the samples of a micro-batch into pinned memory; too short ones get zeros."""
        least = _MIN_FRAMES * self._matrices.shift - self._tail
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

    @staticmethod
    def _read(pending: _Pending, result: Result) -> None:
        pending.done.synchronize()
        _, tokens, frames, log_probs, counts, scores = (tensor.numpy() for tensor in pending.found)
        batch = len(pending.positions)
        most = int(counts[:batch].max())
        # Python's own numbers, made for the whole micro-batch at once: not row by row.
        found = (array[:batch, :most].tolist() for array in (tokens, frames, log_probs))
        each = zip(pending.positions, counts.tolist(), *found, scores.tolist(), pending.peaks.tolist(), strict=False)
        for position, count, ids, at, log_prob, score, peak in each:
            hypothesis = Hypothesis(tuple(ids[:count]), tuple(at[:count]), tuple(log_prob[:count]), score)
            result(position, hypothesis, peak)


def _pinned(array: NDArray[np.int64] | NDArray[np.int32]) -> Tensor:
    return torch.from_numpy(array).pin_memory()
