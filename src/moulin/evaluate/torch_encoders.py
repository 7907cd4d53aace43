"""Encoders of checkpoints to measure: the plain modules, and their form on the GPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moulin.arrays import Floats, Ints
from moulin.bundle.spec import CheckpointSpec, OnnxModelSpec
from moulin.bundle.transducer import load_transducer
from moulin.engine.torch.prediction import DTYPES, torch_device
from moulin.errors import EngineError, first_line
from moulin.gpu.graphs import EncoderGraphs, bucket_frames, bucket_rows
from moulin.gpu.open_encoder import gpu_encoder
from moulin.tensorrt_engine.loaded_plan import TensorRtPlan
from moulin.tensorrt_engine.runner import TensorRtEncoder


class ModulesEncoder:
    """The modules of `moulin.encoders` in the spec's precision (fp32 by default), run operator by operator or,
    `compiled`, as PyTorch's compiler makes them for each shape, on a GPU in CUDA graphs."""

    def __init__(
        self, spec: CheckpointSpec, *, device: str, threads: int | None, on_device: bool, compiled: bool = False
    ) -> None:
        self._device, self._dtype, self._on_device = torch_device(device), DTYPES[spec.precision], on_device
        if threads is not None:
            torch.set_num_threads(threads)
        transducer = load_transducer([spec.checkpoint])
        self._encoder = transducer.encoder.to(self._device, self._dtype)
        self._projection = transducer.joiner.encoder_proj.to(self._device, self._dtype)
        self._run: Callable[[Tensor, Tensor], Tensor] = self._modules
        if compiled:
            self._run = torch.compile(self._modules, mode="reduce-overhead", dynamic=False)

    def prepare(self, x: Floats, x_lens: Ints) -> Callable[[], object]:
        features, lengths = torch.from_numpy(x), torch.from_numpy(x_lens)
        if self._on_device:
            features, lengths = features.to(self._device), lengths.to(self._device)

        def forward() -> Tensor:
            return self._run(features.to(self._device, self._dtype), lengths.to(self._device))

        return _call(forward, self._device, on_device=self._on_device)

    def _modules(self, x: Tensor, x_lens: Tensor) -> Tensor:
        encoder_out, _ = self._encoder(x, x_lens)
        projected: Tensor = self._projection(encoder_out)
        return projected


class GpuEngineEncoder:
    """`moulin.gpu`'s encoder as whole graphs, filled up to their sizes as in service; in fp16 unless the spec says
    else."""

    def __init__(self, spec: CheckpointSpec, *, device: str, on_device: bool, cuda_graphs: bool = True) -> None:
        self._device, self._on_device, self._enabled = torch_device(device), on_device, cuda_graphs
        self._transducer, self._dtype = load_transducer([spec.checkpoint]), DTYPES[spec.run_in or "fp16"]

    def prepare(self, x: Floats, x_lens: Ints) -> Callable[[], object]:
        rows, frames = bucket_rows(len(x)), bucket_frames(x.shape[1])
        # Rows that fill the batch up are silence of the same length.
        features = torch.zeros(rows, frames, x.shape[2])
        features[: len(x), : x.shape[1]] = torch.from_numpy(x)
        lengths = np.full(rows, x.shape[1], np.int32)
        lengths[: len(x)] = x_lens
        on_gpu = self._device.type == "cuda"
        stream: Any = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]
        with torch.inference_mode(), torch.cuda.stream(stream) if on_gpu else nullcontext():
            encoder = gpu_encoder(self._transducer, device=self._device, dtype=self._dtype, max_frames=frames)
            graphs = EncoderGraphs(
                encoder,
                device=self._device,
                max_batch_frames=rows * frames,
                enabled=self._enabled,
            )
            inputs, counts = graphs.inputs(rows, frames)
            inputs.copy_(features)
            counts.copy_(torch.from_numpy(encoder.counts(lengths)))
        if on_gpu and not self._on_device:
            features = features.pin_memory()

        def forward() -> Tensor:
            with torch.cuda.stream(stream) if on_gpu else nullcontext():
                if not self._on_device:
                    inputs.copy_(features, non_blocking=True)
                encoder_out = graphs.run(inputs, counts)[: len(x), :, : self._transducer.joiner.joiner_dim]
                return encoder_out if self._on_device else encoder_out.float().cpu()

        return _call(forward, self._device, on_device=self._on_device)


class PlanEncoder:
    """TensorRT's engine of an ONNX file."""

    def __init__(self, spec: OnnxModelSpec, plan: TensorRtPlan, *, on_device: bool) -> None:
        self._encoder, self._plan, self._on_device = TensorRtEncoder(spec, plan), plan, on_device

    def prepare(self, x: Floats, x_lens: Ints) -> Callable[[], object]:
        if not self._on_device:
            return lambda: self._encoder.encoder(x, x_lens)
        with self._plan.computing():
            tensors = self._encoder.tensors(x, x_lens)

        def call() -> object:
            with self._plan.computing():
                found = self._plan.run(tensors)
                if self._plan.device.type == "cuda":
                    torch.cuda.synchronize(self._plan.device)
                return found

        return call


def _call(forward: Callable[[], Tensor], device: torch.device, *, on_device: bool) -> Callable[[], object]:
    """A call of `forward` that returns when its result is there, on the device or in the host's memory."""

    def call() -> object:
        try:
            with torch.inference_mode():
                found = forward()
                if not on_device:
                    return found.float().cpu().numpy()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                return found
        except RuntimeError as error:  # want of memory, say
            raise EngineError(f"PyTorch failed on {device}: {first_line(error)}") from error

    return call
