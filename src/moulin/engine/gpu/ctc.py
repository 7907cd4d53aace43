"""A CTC head on our GPU engine: encoder and head on the card in half precision, features and search on the host.

Passes are launched kernel by kernel, without CUDA graphs.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from moulin.arrays import Floats, Ints
from moulin.audio.fbank import PADDING_VALUE
from moulin.bundle.spec import MIN_FRAMES, ModelSpec
from moulin.encoders.ctc_model import CtcModel
from moulin.engine.batching import GPU_BATCH_FRAMES, GPU_BATCH_STREAMS
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_runner import check_counts
from moulin.engine.torch.fbank import TorchFbank
from moulin.engine.torch.prediction import DTYPES, computing, torch_device
from moulin.gpu.graphs import most_rows
from moulin.gpu.kernels.stream_attention import Chunks
from moulin.gpu.open_encoder import gpu_encoder, gpu_stream_encoder


class GpuCtcEncoder:
    """A `CtcRunner`."""

    num_workers = 1
    max_batch_frames = GPU_BATCH_FRAMES

    def __init__(
        self, spec: ModelSpec, model: CtcModel, *, max_frames: int, device: str = "cuda", threads: int | None = None
    ) -> None:
        """`model` has the weights of `spec`, and runs in the precision of `spec`. Utterances have `max_frames` at most.
        `threads` are those of the search, on the CPU. Raises EngineError where the device does not work or the GPU
        engine does not know the encoder."""
        self._device, dtype = torch_device(device), DTYPES[spec.precision]
        self.threads = threads or len(os.sched_getaffinity(0))
        with computing(self._device):
            self._encoder = gpu_encoder(model, device=self._device, dtype=dtype, max_frames=max_frames)

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:  # noqa: ARG002
        missing = max(0, MIN_FRAMES - x.shape[1])
        x = np.pad(x, ((0, 0), (0, missing), (0, 0)), constant_values=PADDING_VALUE)
        counts = self._encoder.counts(np.maximum(x_lens, MIN_FRAMES).astype(np.int32))
        with computing(self._device):
            features, on_card = (torch.from_numpy(each).to(self._device) for each in (x, counts))
            return _log_probs(self._encoder(features, on_card)), counts[-1].astype(np.int64)


class GpuCtcStreamEncoder:
    """A `StreamEncoder`. Where a step fails, its streams cannot go on."""

    def __init__(
        self,
        spec: ModelSpec,
        model: CtcModel,
        *,
        capacity: int,
        max_batch: int | None = None,
        device: str = "cuda",
    ) -> None:
        """`capacity` is the limit on open streams, `max_batch` on streams in a batch; else as for `GpuCtcEncoder`.
        Raises OptionsError too."""
        check_counts({"streams": capacity, "streams in a batch": max_batch})
        self._device, dtype = torch_device(device), DTYPES[spec.precision]
        largest = most_rows(max_batch or GPU_BATCH_STREAMS)
        self.limits = StepLimits(capacity, largest)
        self._numbers = np.zeros(capacity, np.int32)
        with computing(self._device):
            self._fbank = TorchFbank(spec.feature_dim, self._device)
            self._encoder = gpu_stream_encoder(
                model, capacity=capacity, max_batch=largest, device=self._device, dtype=dtype
            )

    def fbank(self, frames: Floats) -> Floats:
        with computing(self._device):
            return self._fbank(frames)

    def encoder(self, x: Floats, slots: Ints) -> Floats:
        with computing(self._device):
            windows = torch.from_numpy(x).to(self._device)
            at = Chunks(
                *(torch.from_numpy(each).to(self._device) for each in (slots.astype(np.int32), self._numbers[slots]))
            )
            found = _log_probs(self._encoder(windows, at))
        self._numbers[slots] += 1
        return found

    def reset(self, slots: Ints) -> None:
        self._numbers[slots] = 0  # chunk 0 reads nothing that another stream left


def _log_probs(logits: Tensor) -> Floats:
    found: Floats = logits.log_softmax(dim=-1, dtype=torch.float32).cpu().numpy()
    return found
