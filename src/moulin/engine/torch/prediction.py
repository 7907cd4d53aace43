"""A transducer in PyTorch: what its runners for whole utterances and for streams have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from moulin.arrays import Floats, Ints
from moulin.bundle.files import Precision
from moulin.bundle.spec import CheckpointSpec
from moulin.bundle.transducer import load_transducer
from moulin.encoders.transducer import Transducer
from moulin.engine.device import gpu_index
from moulin.errors import EngineError, OptionsError, first_line

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchPrediction:
    """A `PredictionNetwork` of a loaded transducer, on the CPU: its networks are so small that launching them on a GPU
    costs more than computing them here."""

    def __init__(self, spec: CheckpointSpec, transducer: Transducer, *, threads: int | None = None) -> None:
        """`threads` is PyTorch's for the whole process, by default all that it may use. Raises OptionsError."""
        if threads is not None and threads < 1:
            raise OptionsError(f"Expected at least 1 thread, got {threads}")
        self.spec = spec
        self._decoder, self._joiner = transducer.decoder, transducer.joiner
        self._threads = threads or len(os.sched_getaffinity(0))
        torch.set_num_threads(self._threads)

    @property
    def context_size(self) -> int:
        return self.spec.context_size

    @property
    def skipped_ids(self) -> tuple[int, ...]:
        return self.spec.tokens.skipped_ids

    @property
    def threads(self) -> int:
        return self._threads

    def decoder(self, y: Ints) -> Floats:
        with computing("cpu"):
            return _array(self._joiner.decoder_proj(self._decoder(torch.from_numpy(y))))

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        with computing("cpu"):
            return _array(self._joiner(torch.from_numpy(encoder_out), torch.from_numpy(decoder_out)))


class TorchNetworks(TorchPrediction):
    """A whole transducer from a checkpoint's file, with the encoder on the `device`."""

    def __init__(self, spec: CheckpointSpec, *, device: str = "cpu", threads: int | None = None) -> None:
        """Raises BundleError for the checkpoint and EngineError where the device does not work."""
        self.device = torch_device(device)
        # On a GPU convolutions would else keep three digits of their inputs: fp32 is to mean fp32.
        torch.backends.cudnn.allow_tf32 = False
        self._transducer = load_transducer([spec.checkpoint])
        super().__init__(spec, self._transducer, threads=threads)
        self._encoder = self._transducer.encoder.to(self.device)
        # Once a frame, where the encoder's frames are.
        self._encoder_proj = self._joiner.encoder_proj.to(self.device)

    @property
    def num_workers(self) -> int:
        """One: PyTorch's own threads share a call's work."""
        return 1

    def _projected(self, encoder_out: Tensor) -> Floats:
        return _array(self._encoder_proj(encoder_out))

    def _computing(self) -> AbstractContextManager[None]:
        return computing(self.device)


@contextmanager
def computing(device: torch.device | str) -> Iterator[None]:
    """Inference; raises EngineError for what PyTorch raises, say for want of memory."""
    try:
        with torch.inference_mode():
            yield
    except RuntimeError as error:
        raise EngineError(f"PyTorch failed on {device}: {first_line(error)}") from error


def torch_device(device: str) -> torch.device:
    """cpu, cuda or cuda:N. Raises OptionsError for what is none and EngineError for one that is not there."""
    index = gpu_index(device)
    if index is None:
        return torch.device("cpu")
    if index >= torch.cuda.device_count():
        raise EngineError(
            f"PyTorch {torch.__version__} sees {torch.cuda.device_count()} GPUs, and {device} was asked for",
            hint="see that this PyTorch was built for CUDA, and what nvidia-smi says",
        )
    return torch.device("cuda", index)


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.float().cpu().numpy()
    return array
