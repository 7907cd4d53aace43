"""Runner on ONNX Runtime, with its CPU or CUDA execution provider."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moulin.bundle.spec import ModelSpec
from moulin.decoding.network import Floats, Ints
from moulin.errors import EngineError, OptionsError

if TYPE_CHECKING:
    import onnxruntime

# Measured in docs/benchmarks: on a CPU a larger batch costs padding and cache misses and wins nothing; a GPU wants
# as much as it can get.
_CPU_BATCH_FRAMES = 1_600
_CUDA_BATCH_FRAMES = 64_000

_DEVICE = re.compile(r"cpu|cuda(?::(?P<index>\d+))?")


class OnnxRuntimeRunner:
    """Encoder, decoder and joiner as ONNX Runtime sessions.

    On the CPU the encoder is there twice: calls that run beside each other get one thread each, which wastes
    nothing on synchronisation, and a call that is alone gets all `threads`. On a GPU only the encoder runs there:
    the decoder and joiner are so small that launching them costs more than computing them here.
    """

    def __init__(self, spec: ModelSpec, *, device: str = "cpu", threads: int | None = None) -> None:
        """`device` is cpu, cuda or cuda:N; `threads` is the CPU threads to use, by default all that this process
        may. Raises EngineError where ONNX Runtime, the device or the model does not work."""
        if threads is not None and threads < 1:
            raise OptionsError(f"Expected at least 1 thread, got {threads}")
        self.spec = spec
        self.device = device
        self._threads = threads or len(os.sched_getaffinity(0))
        self._decoder = _session(spec.decoder.file, "cpu", 1)
        self._joiner = _session(spec.joiner.file, "cpu", 1)
        self._encoder = _session(spec.encoder.file, device, 1)
        self._whole_machine_encoder = (
            self._encoder if self.on_cuda or self._threads == 1 else _session(spec.encoder.file, device, self._threads)
        )

    @property
    def on_cuda(self) -> bool:
        return self.device != "cpu"

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def num_workers(self) -> int:
        return 1 if self.on_cuda else self._threads

    @property
    def max_batch_frames(self) -> int:
        if not self._takes_lengths:
            return 1  # an export that takes no lengths cannot tell padding from speech: one by one
        return _CUDA_BATCH_FRAMES if self.on_cuda else _CPU_BATCH_FRAMES

    @property
    def context_size(self) -> int:
        return self.spec.context_size

    @cached_property
    def skipped_ids(self) -> tuple[int, ...]:
        unk_id = self.spec.tokens.unk_id
        return (0,) if unk_id is None else (0, unk_id)

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:
        session = self._whole_machine_encoder if alone else self._encoder
        values: list[NDArray[Any]] = [x, x_lens]
        tensors = zip(self.spec.encoder.inputs, values, strict=False)  # an export may take no lengths
        inputs = {tensor.name: value.astype(tensor.dtype, copy=False) for tensor, value in tensors}
        encoder_out, *rest = _run(session, self._encoder_outputs, inputs)
        lengths = rest[0] if rest else np.full(len(x), encoder_out.shape[1])
        return encoder_out.astype(np.float32, copy=False), lengths.astype(np.int64, copy=False)

    def decoder(self, y: Ints) -> Floats:
        tensor = self.spec.decoder.input("y", 0)
        return _run(self._decoder, None, {tensor.name: y.astype(tensor.dtype, copy=False)})[0]

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        encoder_name, decoder_name = self._joiner_inputs
        return _run(self._joiner, None, {encoder_name: encoder_out, decoder_name: decoder_out})[0]

    @cached_property
    def _takes_lengths(self) -> bool:
        return len(self.spec.encoder.inputs) > 1

    @cached_property
    def _encoder_outputs(self) -> list[str]:
        return [tensor.name for tensor in self.spec.encoder.outputs[:2]]

    @cached_property
    def _joiner_inputs(self) -> tuple[str, str]:
        joiner = self.spec.joiner
        return joiner.input("encoder_out", 0).name, joiner.input("decoder_out", 1).name


def _run(
    session: onnxruntime.InferenceSession, outputs: list[str] | None, inputs: dict[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    try:
        return session.run(outputs, inputs)  # type: ignore[no-any-return]
    except Exception as error:  # ONNX Runtime has many exception types and no common base but this one
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
        raise EngineError(f"ONNX Runtime failed on {shapes}: {_first_line(error)}") from error


def _session(file: Path, device: str, threads: int) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise EngineError(
            "Running a model needs ONNX Runtime, which is not installed",
            hint="pip install 'moulin[engine]', or 'moulin[gpu]' on a machine with an NVIDIA GPU",
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong comes as an exception too
    # A plan of memory for a shape that never comes again: the block is allocated anew, and its pages are faulted in,
    # at every call. Without it the arena's chunks are reused; the encoder of digits-en takes a fifth less time.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    providers = _providers(device, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(file, options, providers=providers)
    except Exception as error:  # as above
        raise EngineError(f"ONNX Runtime cannot load {file}: {_first_line(error)}") from error
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if wanted not in session.get_providers():
        raise EngineError(
            f"ONNX Runtime could not start {wanted} and would have run on the CPU",
            hint="see that the CUDA and cuDNN libraries it was built for are installed and on LD_LIBRARY_PATH",
        )
    return session


def _providers(device: str, available: list[str]) -> list[Any]:
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise OptionsError(f"Expected a device of cpu, cuda or cuda:N, got {device!r}")
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in available:
        raise EngineError(
            f"This ONNX Runtime has no CUDA provider, only {', '.join(available)}",
            hint="pip uninstall onnxruntime && pip install 'moulin[gpu]'",
        )
    cuda = {
        "device_id": int(match["index"] or 0),
        # The default tries every convolution algorithm for every new shape, and every batch has a new shape.
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
