"""The runtime API of TensorRT (10 and later) and TensorRT-RTX: a plan with PyTorch tensors as inputs and outputs.

PyTorch provides memory and the stream; TensorRT does all computation.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moulin.errors import EngineError, first_line
from moulin.tensorrt_engine.library_log import Listener, listening, logger_of
from moulin.tensorrt_engine.profiles import Profile, Range, Shape
from moulin.tensorrt_engine.runtime_cache import RuntimeCache


class TensorRtPlan:
    """A deserialised plan with one execution context, for one caller at a time: the one within `computing`."""

    def __init__(self, file: Path, tensorrt: Any, device: torch.device) -> None:
        """`tensorrt` is the module, of TensorRT or TensorRT-RTX. `device` is a GPU; the stand-in in
        tests uses the CPU.

        Raises EngineError where TensorRT cannot load the plan, or the GPU has too little memory for it.
        """
        self.file, self.device, self._tensorrt = file, device, tensorrt
        self._lock = threading.Lock()
        on_gpu = device.type == "cuda"
        self._stream: Any = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
        self._runtime = tensorrt.Runtime(logger_of(tensorrt))  # has to outlive the engine
        with self.computing(), listening(tensorrt) as listener:
            content = file.read_bytes()
            check_validity(self._runtime, content, file, tensorrt)
            self._engine = self._runtime.deserialize_cuda_engine(content)
            if self._engine is None:
                raise EngineError(
                    f"TensorRT {tensorrt.__version__} cannot load {file}: {listener.reason}",
                    hint="build the engine again with `moulin trt build`",
                )
            self._cache = RuntimeCache.of(self._engine, file, device)
            self._context = (
                self._engine.create_execution_context()
                if self._cache is None
                else self._engine.create_execution_context(self._cache.config)
            )
            if self._context is None:
                raise EngineError(
                    f"TensorRT cannot allocate memory for running {file}: {listener.reason}",
                    hint="a smaller --max-batch or --max-audio-sec needs less of the GPU's memory",
                )
        engine = self._engine
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        inputs = {name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT}
        self.inputs = {name: self._dtype(name) for name in names if name in inputs}
        self.outputs = {name: self._dtype(name) for name in names if name not in inputs}
        self.profiles: Sequence[Profile] = [
            {name: Range(*map(_shape, engine.get_tensor_profile_shape(name, number))) for name in self.inputs}
            for number in range(engine.num_optimization_profiles)
        ]
        self._profile = 0  # a new context has profile 0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Lock the plan and use its GPU stream; every operation on its tensors belongs inside. PyTorch's exceptions,
        for example for lack of memory, become EngineError."""
        on_gpu = self._stream is not None
        try:
            with self._lock, torch.inference_mode(), torch.cuda.stream(self._stream) if on_gpu else nullcontext():
                yield
        except RuntimeError as error:
            raise EngineError(f"Running {self.file.name} failed on {self.device}: {first_line(error)}") from error

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the plan on `inputs` and return its outputs, both by name and on the device. To be called within
        `computing`; the outputs are valid in stream order.

        Raises EngineError for shapes outside all profiles, and where TensorRT fails.
        """
        with listening(self._tensorrt) as listener:
            return self._run(inputs, listener)

    def _run(self, inputs: Mapping[str, Tensor], listener: Listener) -> dict[str, Tensor]:
        def check(done: bool, what: str) -> None:
            if not done:
                raise EngineError(f"TensorRT failed on {what} with {self.file.name}: {listener.reason}")

        context = self._context
        profile = self._fitting_profile({name: tuple(tensor.shape) for name, tensor in inputs.items()})
        if profile != self._profile:
            check(context.set_optimization_profile_async(profile, self._stream_handle), f"profile {profile}")
            self._profile = profile
        # Keeps the inputs alive until TensorRT has read them.
        given = {name: inputs[name].to(dtype).contiguous() for name, dtype in self.inputs.items()}
        for name, tensor in given.items():
            check(context.set_input_shape(name, tuple(tensor.shape)), f"the shape {_spelled(tensor)} of {name}")
            check(context.set_tensor_address(name, tensor.data_ptr()), f"the memory of {name}")
        found: dict[str, Tensor] = {}
        for name, dtype in self.outputs.items():
            shape = _shape(context.get_tensor_shape(name))
            if min(shape, default=0) < 0:
                raise EngineError(f"{self.file.name} leaves the shape of {name} open: TensorRT gives {list(shape)}")
            found[name] = torch.empty(shape, dtype=dtype, device=self.device)
            check(context.set_tensor_address(name, found[name].data_ptr()), f"the memory of {name}")
        check(context.execute_async_v3(self._stream_handle), "the whole pass")
        if self._cache is not None:
            self._cache.after_pass()
        return found

    def _fitting_profile(self, shapes: Mapping[str, Shape]) -> int:
        """The first profile that contains `shapes`; the shorter ones come first and are faster."""
        for number, profile in enumerate(self.profiles):
            if _holds(profile, shapes):
                return number
        given = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        reach = "; ".join(_reach(profile) for profile in self.profiles)
        raise EngineError(f"{self.file.name} was built for {reach}, got {given}")

    def _dtype(self, name: str) -> torch.dtype:
        numpy_dtype = np.dtype(self._tensorrt.nptype(self._engine.get_tensor_dtype(name)))
        return torch.from_numpy(np.empty(0, numpy_dtype)).dtype

    @property
    def _stream_handle(self) -> int:
        return 0 if self._stream is None else self._stream.cuda_stream


def check_validity(runtime: Any, content: bytes, file: Path, tensorrt: Any) -> None:
    """Raise EngineError with TensorRT-RTX's reasons where it cannot run the plan `content` of `file` here. TensorRT has
    no such check."""
    if not hasattr(runtime, "get_engine_validity"):
        return
    validity, diagnostics = runtime.get_engine_validity(content)
    if validity != tensorrt.EngineValidity.INVALID:
        return
    known = tensorrt.EngineInvalidityDiagnostics.__members__.items()
    reasons = [name.lower().replace("_", " ") for name, flag in known if int(diagnostics) & int(flag)]
    raise EngineError(
        f"TensorRT-RTX {tensorrt.__version__} cannot run {file} on this GPU: {', '.join(reasons) or 'no reason given'}",
        hint="build the engine again with `moulin trt build`, on this machine or with --for its architecture",
    )


def _shape(dims: Sequence[int]) -> Shape:
    return tuple(int(size) for size in dims)


def _holds(profile: Profile, shapes: Mapping[str, Shape]) -> bool:
    return all(
        len(shapes[name]) == len(reach.least)
        and all(low <= size <= high for low, size, high in zip(reach.least, shapes[name], reach.largest, strict=True))
        for name, reach in profile.items()
    )


def _reach(profile: Profile) -> str:
    return ", ".join(f"{name} {list(reach.least)} to {list(reach.largest)}" for name, reach in profile.items())


def _spelled(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
