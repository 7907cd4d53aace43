"""Whole encoder passes as CUDA graphs, one for each batch size that occurs.

Launching the 500 kernels of a pass takes the host longer than the GPU needs to run them. A graph is one launch, but has
fixed sizes and addresses: so batches are filled up to one of a few sizes (buckets), all graphs have their inputs and
output in the same memory, and they share a pool for everything between.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch import Tensor

from moulin.bundle.spec import MIN_FRAMES
from moulin.gpu.encoder import GpuEncoder

Out = TypeVar("Out")  # tensors, one or several

MAX_GRAPHS = 512
_STEPS = 16  # sizes between a number of frames and its double, so that filling is at most a 16th of a batch
_MIN_STEP = 32


def bucket_frames(frames: int) -> int:
    """The length in feature frames to which a batch of utterances of up to `frames` is filled up."""
    step = max(_MIN_STEP, (1 << (frames.bit_length() - 1)) // _STEPS)
    return -(-frames // step) * step


def bucket_rows(rows: int) -> int:
    """The number of utterances to which a batch of `rows` is filled up: 1 to 8, 10, 12, 14, 16, 20, 24, 28, 32, ..."""
    step = max(1, (1 << (rows - 1).bit_length()) // 8)
    return -(-rows // step) * step


def power_of_two(count: int) -> int:
    """The least one that is at least `count`: the places of a beam."""
    return 1 << (count - 1).bit_length()


def most_rows(limit: int) -> int:
    """The largest bucket of utterances up to `limit`, at least 1."""
    rows = max(limit, 1)
    while bucket_rows(rows) > rows:
        rows -= 1
    return rows


class EncoderGraphs:
    """An encoder on its device. Not thread-safe: passes run in sequence on one stream, not the default one."""

    def __init__(
        self, encoder: GpuEncoder, *, device: torch.device, max_batch_frames: int, enabled: bool = True
    ) -> None:
        """Batches of more than `max_batch_frames` feature frames, filling included, run without a graph; all do, unless
        `enabled`."""
        self._encoder, self._device, self.enabled = encoder, device, enabled
        self._channels = encoder.out_channels
        rates = encoder.counts_of(1).shape[0]
        self._max_frames = max_batch_frames
        self._features = torch.zeros(max_batch_frames * encoder.feature_dim, device=device)
        self._counts = torch.ones(rates * (max_batch_frames // MIN_FRAMES), dtype=torch.int32, device=device)
        self._encoder_out = torch.zeros(
            max_batch_frames // 4 * encoder.out_channels, dtype=encoder.dtype, device=device
        )
        self._rates = rates
        self._graphs: OrderedDict[tuple[int, int], torch.cuda.CUDAGraph | None] = OrderedDict()
        self._pool: Any = None

    def inputs(self, rows: int, frames: int) -> tuple[Tensor, Tensor]:
        """The memory in which `run` expects a batch of a bucket's size: features float32 [rows, frames, feature_dim]
        and counts int32 [S, rows]. Valid until the next call."""
        feature_dim = self._encoder.feature_dim
        if not self._has_graph(rows, frames):
            return (
                torch.empty(rows, frames, feature_dim, device=self._device),
                torch.empty(self._rates, rows, dtype=torch.int32, device=self._device),
            )
        features = self._features[: rows * frames * feature_dim].view(rows, frames, feature_dim)
        return features, self._counts[: self._rates * rows].view(self._rates, rows)

    def run(self, features: Tensor, counts: Tensor) -> Tensor:
        """encoder_out [rows, T', out_channels] for the filled `inputs`; overwritten by the next run."""
        rows, frames, _ = features.shape
        if not self._has_graph(rows, frames):
            return self._encoder(features, counts)
        key = rows, frames
        if key not in self._graphs:
            # The first batch of a size runs without a graph, which also compiles and tunes its kernels.
            self._graphs[key] = None
            return self._encoder(features, counts)
        self._graphs.move_to_end(key)
        graph = self._graphs[key]
        out_frames = self._encoder.out_frames(frames)
        out = self._encoder_out[: rows * out_frames * self._channels].view(rows, out_frames, self._channels)
        if graph is None:
            graph = self._graphs[key] = self._capture(features, counts, out)
            if len(self._graphs) > MAX_GRAPHS:
                self._graphs.popitem(last=False)
        graph.replay()
        return out

    def warm_up(self, rows: int, frames: int) -> None:
        """Capture the graph of a bucket."""
        features, counts = self.inputs(rows, frames)
        features.fill_(-10.0)
        counts.copy_(torch.from_numpy(self._encoder.counts_of(frames).repeat(rows, axis=1)))
        for _ in range(2):
            self.run(features, counts)

    def _has_graph(self, rows: int, frames: int) -> bool:
        return self.enabled and rows * frames <= self._max_frames

    def _capture(self, features: Tensor, counts: Tensor, out: Tensor) -> torch.cuda.CUDAGraph:
        graph, _ = capture(lambda: out.copy_(self._encoder(features, counts)), self._pool)
        if self._pool is None:
            self._pool = graph.pool()
        return graph


def capture(run: Callable[[], Out], pool: Any) -> tuple[torch.cuda.CUDAGraph, Out]:
    """Capture `run` as a graph; returns it and the memory of its result. `pool` provides memory; None makes a new one.

    To be called on the stream on which the graph will run, because cuBLAS has a workspace for each stream.
    """
    # A thread's first product makes its handle of cuBLAS, which a capture does not survive, nor any work after it.
    torch.cuda.current_blas_handle()  # type: ignore[no-untyped-call]
    # "thread_local" lets other threads allocate. `torch.cuda.graph` would also collect garbage, which takes longer.
    graph = torch.cuda.CUDAGraph()
    graph.capture_begin(pool=pool, capture_error_mode="thread_local")
    try:
        out = run()
    except BaseException:
        with suppress(RuntimeError):  # that the capture has failed
            graph.capture_end()
        raise
    graph.capture_end()
    return graph, out
