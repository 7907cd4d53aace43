"""Streaming runner for causal Zipformer2 checkpoints on a GPU: the encoder by `moulin.gpu`, in half precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from moulin.bundle.checkpoint_spec import layout_of
from moulin.bundle.spec import CheckpointSpec
from moulin.decoding.network import Floats, Ints
from moulin.encoders.zipformer2 import CHUNK_SIZE, LEFT_CONTEXT_FRAMES, Zipformer2
from moulin.engine.torch_fbank import TorchFbank
from moulin.engine.torch_prediction import TorchPrediction
from moulin.errors import EngineError, OptionsError
from moulin.gpu.graphs import bucket_rows, most_rows
from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.stream_zipformer2 import GpuStreamZipformer2

MAX_BATCH = 1024

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class GpuStreamRunner(TorchPrediction):
    """A `StreamRunner`. The states of all streams are on the card, and a step is a CUDA graph, one for each of a few
    sizes of batch; what fills one up is a stream of its own, in a slot that nobody else has.

    Steps are one after the other. The searches are on the CPU.
    """

    def __init__(
        self,
        spec: CheckpointSpec,
        *,
        capacity: int,
        device: str = "cuda",
        threads: int | None = None,
        max_batch: int | None = None,
        cuda_graphs: bool = True,
    ) -> None:
        """In the spec's precision, fp16 or bf16. `capacity` streams may be open, and `max_batch` of them go through the
        encoder together.

        Raises BundleError for the checkpoint, and EngineError where the device does not work or the encoder is no
        causal Zipformer2.
        """
        for name, value in (("streams", capacity), ("streams in a batch", max_batch)):
            if value is not None and value < 1:
                raise OptionsError(f"Expected at least 1 of {name}, got {value}")
        super().__init__(spec, device=device, threads=threads)
        # What is made of them goes to the device, in another form.
        plain, _ = self._encoder.cpu(), self._joiner.cpu()
        if not isinstance(plain, Zipformer2):
            raise EngineError(f"The GPU engine does not know the {plain.family} encoder of streams")
        self._capacity, self._max_batch = capacity, most_rows(max_batch or MAX_BATCH)
        self._fbank = TorchFbank(spec.feature_dim, self.device)
        layout = layout_of(self._transducer, spec.checkpoint)
        with self._computing():
            self._step = GpuStreamZipformer2(
                plain,
                self._joiner,
                capacity=capacity + 1,
                max_batch=self._max_batch,
                device=self.device,
                dtype=_DTYPES[spec.precision],
                chunk_size=CHUNK_SIZE,
                left_context_frames=LEFT_CONTEXT_FRAMES,
            )
            size = (self._max_batch, layout.window_frames, spec.feature_dim)
            self._windows = torch.zeros(size, device=self.device)
            self._at = Chunks(
                *(torch.zeros(self._max_batch, dtype=torch.int32, device=self.device) for _ in Chunks._fields)
            )
        self._numbers = np.zeros(capacity + 1, dtype=np.int32)  # chunks of each slot's stream so far
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor] | None] = {}
        self._cuda_graphs = cuda_graphs and self.device.type == "cuda"
        self._pool: Any = None
        self._stream: Any = torch.cuda.Stream(self.device) if self._cuda_graphs else None  # type: ignore[no-untyped-call]

        self._capture_all()

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def max_batch(self) -> int:
        return self._max_batch

    def fbank(self, frames: Floats) -> Floats:
        with self._computing():
            return self._fbank(frames)

    def encoder(self, x: Floats, slots: Ints, *, alone: bool = False) -> Floats:  # noqa: ARG002
        count = len(slots)
        rows = bucket_rows(count)
        chosen = np.full(rows, self._capacity, dtype=np.int32)
        chosen[:count] = slots
        with self._computing(), torch.cuda.stream(self._stream):
            self._windows[:count].copy_(torch.from_numpy(x))
            self._at.slots[:rows].copy_(torch.from_numpy(chosen))
            self._at.numbers[:rows].copy_(torch.from_numpy(self._numbers[chosen]))
            encoder_out: Floats = self._run(rows)[:count].float().cpu().numpy()
        self._numbers[slots] += 1
        return encoder_out

    def reset(self, slot: int) -> None:
        self._numbers[slot] = 0

    def replay_ms(self, rows: int, rounds: int = 20) -> float:
        """The GPU's time for a step of `rows` streams, a size that has a graph; for benchmarks."""
        captured = self._graphs[rows]
        assert captured is not None
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        with self._computing(), torch.cuda.stream(self._stream):
            self._at.slots.fill_(self._capacity)
            start.record()
            for _ in range(rounds):
                captured[0].replay()
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / rounds

    def _capture_all(self) -> None:
        """Have all graphs, that no stream waits for one."""
        if not self._cuda_graphs:
            return
        rows = 0
        with self._computing(), torch.cuda.stream(self._stream):
            self._at.slots.fill_(self._capacity)
            while rows < self._max_batch:
                rows = bucket_rows(rows + 1)
                for _ in range(2):
                    self._run(rows)
            torch.cuda.synchronize(self.device)

    def _run(self, rows: int) -> torch.Tensor:
        """The step of the first `rows` streams. Its states are written at their places: a step that is run again
        writes the same, but for what the convolution at the front looks back on."""
        windows, at = self._windows[:rows], Chunks(*(of_all[:rows] for of_all in self._at))
        if not self._cuda_graphs:
            return self._step(windows, at)
        if rows not in self._graphs:
            # The first of its size is run as it is, which also compiles what has to be.
            self._graphs[rows] = None
            return self._step(windows, at)
        captured = self._graphs[rows]
        if captured is None:
            graph = torch.cuda.CUDAGraph()
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            out = self._step(windows, at)
            graph.capture_end()
            self._pool = self._pool or graph.pool()
            captured = self._graphs[rows] = graph, out
        captured[0].replay()
        return captured[1]
