"""Streaming runner for causal Zipformer2 checkpoints on a GPU: the encoder by `moulin.gpu`, in half precision."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from moulin.bundle.checkpoint_spec import layout_of
from moulin.bundle.spec import CheckpointSpec
from moulin.decoding.network import Floats, Ints
from moulin.encoders.zipformer2 import CHUNK_SIZE, LEFT_CONTEXT_FRAMES, Zipformer2
from moulin.engine.torch_prediction import DTYPES
from moulin.engine.torch_streaming import TorchStreaming
from moulin.errors import EngineError
from moulin.gpu.graphs import bucket_rows, capture, most_rows
from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.stream_zipformer2 import GpuStreamZipformer2

MAX_BATCH = 1024


class GpuStreamRunner(TorchStreaming):
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
        super().__init__(
            spec,
            capacity=capacity,
            device=device,
            threads=threads,
            max_batch=max_batch,
            usual_max_batch=MAX_BATCH,
        )
        # What is made of them goes to the device, in another form.
        plain, _ = self._encoder.cpu(), self._joiner.cpu()
        if not isinstance(plain, Zipformer2):
            raise EngineError(f"The GPU engine does not know the {plain.family} encoder of streams")
        self._max_batch = most_rows(self._max_batch)
        layout = layout_of(self._transducer, spec.checkpoint)
        with self._computing():
            self._step = GpuStreamZipformer2(
                plain,
                self._joiner,
                capacity=capacity + 1,
                max_batch=self._max_batch,
                device=self.device,
                dtype=DTYPES[spec.precision],
                chunk_size=CHUNK_SIZE,
                left_context_frames=LEFT_CONTEXT_FRAMES,
            )
            size = (self._max_batch, layout.window_frames, spec.feature_dim)
            self._windows = torch.zeros(size, device=self.device)
            self._at = Chunks(
                *(torch.zeros(self._max_batch, dtype=torch.int32, device=self.device) for _ in Chunks._fields)
            )
        self._numbers = np.zeros(capacity + 1, dtype=np.int32)  # chunks of each slot's stream so far
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self._stream: Any = None
        if cuda_graphs and self.device.type == "cuda":
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            self._capture_all()

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
        graph, _ = self._graphs[rows]
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        with self._computing(), torch.cuda.stream(self._stream):
            self._at.slots.fill_(self._capacity)
            start.record()
            for _ in range(rounds):
                graph.replay()
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / rounds

    def _capture_all(self) -> None:
        """Have the graphs of all sizes, that no stream waits for one."""
        rows, pool = 0, None
        with self._computing(), torch.cuda.stream(self._stream):
            self._at.slots.fill_(self._capacity)
            while rows < self._max_batch:
                rows = bucket_rows(rows + 1)
                step = partial(self._step, *self._inputs(rows))
                step()  # which compiles what has to be
                self._graphs[rows] = capture(step, pool)
                pool = self._graphs[rows][0].pool()
            torch.cuda.synchronize(self.device)

    def _inputs(self, rows: int) -> tuple[torch.Tensor, Chunks]:
        return self._windows[:rows], Chunks(*(of_all[:rows] for of_all in self._at))

    def _run(self, rows: int) -> torch.Tensor:
        """The step of the first `rows` streams. Its states are written at their places: a step that is run again
        writes the same, but for what the convolution at the front looks back on."""
        if not self._graphs:
            return self._step(*self._inputs(rows))
        graph, out = self._graphs[rows]
        graph.replay()
        return out
