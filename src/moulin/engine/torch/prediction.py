"""A transducer in PyTorch, with the decoder and joiner for offline and streaming models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from moulin.arrays import Floats, Ints
from moulin.bundle.files import Precision
from moulin.bundle.spec import CheckpointSpec
from moulin.encoders.transducer import Transducer
from moulin.engine.device import gpu_index
from moulin.errors import EngineError, OptionsError, first_line

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchPrediction:
    """A `PredictionNetwork`. Decoder and joiner stay on the CPU: both are so small that a launch on a GPU costs more
    than the computation. Only the encoder is on the `device`.
    """

    def __init__(
        self, spec: CheckpointSpec, transducer: Transducer, *, device: str = "cpu", threads: int | None = None
    ) -> None:
        """`transducer` is the model of `spec`, and is moved to the device. `threads` is PyTorch's number for the whole
        process, by default all CPUs that it may use.

        Raises OptionsError, and EngineError where the device does not work.
        """
        if threads is not None and threads < 1:
            raise OptionsError(f"Expected at least 1 thread, got {threads}")
        self.spec = spec
        self.device = torch_device(device)
        self._threads = threads or len(os.sched_getaffinity(0))
        torch.set_num_threads(self._threads)
        # TF32 would keep only three digits of a convolution's inputs; fp32 must mean fp32.
        torch.backends.cudnn.allow_tf32 = False
        self._transducer = transducer
        self._encoder = self._transducer.encoder.to(self.device)
        self._joiner = self._transducer.joiner
        # Applied once for each encoder frame, on the encoder's device.
        self._encoder_proj = self._joiner.encoder_proj.to(self.device)

    @property
    def context_size(self) -> int:
        return self.spec.context_size

    @property
    def skipped_ids(self) -> tuple[int, ...]:
        return self.spec.tokens.skipped_ids

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def num_workers(self) -> int:
        """One: PyTorch's own threads share the work of a call."""
        return 1

    def decoder(self, y: Ints) -> Floats:
        with self._computing():
            return _array(self._transducer.predict(torch.from_numpy(y)))

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        with self._computing():
            return _array(self._joiner(torch.from_numpy(encoder_out), torch.from_numpy(decoder_out)))

    def _projected(self, encoder_out: Tensor) -> Floats:
        return _array(self._encoder_proj(encoder_out))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Inference mode, in which PyTorch's exceptions, for example for lack of memory, become EngineError."""
        try:
            with torch.inference_mode():
                yield
        except RuntimeError as error:
            raise EngineError(f"PyTorch failed on {self.device}: {first_line(error)}") from error


def torch_device(device: str) -> torch.device:
    """The device cpu, cuda or cuda:N. Raises OptionsError for other names and EngineError for a missing GPU."""
    index = gpu_index(device)
    if index is None:
        return torch.device("cpu")
    if index >= torch.cuda.device_count():
        raise EngineError(
            f"Expected a GPU {device}, PyTorch {torch.__version__} finds {torch.cuda.device_count()} GPUs",
            hint="check that this PyTorch was built for CUDA, and the output of nvidia-smi",
        )
    return torch.device("cuda", index)


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.float().cpu().numpy()
    return array
