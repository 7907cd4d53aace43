"""A transducer or CTC model in PyTorch: what its runners for whole utterances and for streams have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from moulin.arrays import Floats, Ints
from moulin.bundle.files import Precision
from moulin.bundle.spec import ModelSpec
from moulin.decoding.blank_skip import with_blank
from moulin.encoders.ctc_model import CtcModel
from moulin.encoders.transducer import Transducer
from moulin.engine.device import gpu_index
from moulin.errors import EngineError, OptionsError, first_line

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class TorchPrediction:
    """A `PredictionNetwork` of a loaded transducer, on the CPU: both networks are so small that a launch on a GPU costs
    more than the computation. A CTC model has neither, and is not asked for them."""

    def __init__(self, spec: ModelSpec, model: Transducer | CtcModel, *, threads: int | None = None) -> None:
        """`threads` is PyTorch's number for the whole process, by default all CPUs that it may use. Raises
        OptionsError."""
        if threads is not None and threads < 1:
            raise OptionsError(f"Expected at least 1 thread, got {threads}")
        self.spec = spec
        self._model = model
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
            return _array(self._transducer.predict(torch.from_numpy(y)))

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        with computing("cpu"):
            return _array(self._transducer.joiner(torch.from_numpy(encoder_out), torch.from_numpy(decoder_out)))

    @property
    def _transducer(self) -> Transducer:
        assert isinstance(self._model, Transducer)
        return self._model


class TorchNetworks(TorchPrediction):
    """A whole model, with the encoder on the `device`."""

    def __init__(
        self,
        spec: ModelSpec,
        model: Transducer | CtcModel,
        *,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        """`model` is the loaded one of `spec`, and its encoder is moved to the device.

        Raises OptionsError, and EngineError where the device does not work.
        """
        self.device = torch_device(device)
        # TF32 would keep only three digits of a convolution's inputs; fp32 must mean fp32.
        torch.backends.cudnn.allow_tf32 = False
        super().__init__(spec, model, threads=threads)
        self._encoder = model.encoder.to(self.device)
        self._ctc = model.ctc.to(self.device) if model.ctc else None
        if isinstance(model, Transducer):
            # Applied once for each encoder frame, on the encoder's device.
            model.joiner.encoder_proj.to(self.device)

    @property
    def num_workers(self) -> int:
        """One: PyTorch's own threads share the work of a call."""
        return 1

    def _projected(self, encoder_out: Tensor) -> Floats:
        """Encoder frames as the search takes them, with a CTC head with the channel of `moulin.decoding.blank_skip`."""
        if self.spec.head == "ctc":
            assert self._ctc is not None  # `load_checkpoint_spec` has looked
            return _array(self._ctc(encoder_out))
        projected = _array(self._transducer.joiner.encoder_proj(encoder_out))
        return with_blank(projected, _array(self._ctc(encoder_out)[..., :1])) if self._ctc else projected

    def _computing(self) -> AbstractContextManager[None]:
        return computing(self.device)


@contextmanager
def computing(device: torch.device | str) -> Iterator[None]:
    """Inference mode, in which PyTorch's exceptions, for example for lack of memory, become EngineError."""
    try:
        with torch.inference_mode():
            yield
    except RuntimeError as error:
        raise EngineError(f"PyTorch failed on {device}: {first_line(error)}") from error


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
