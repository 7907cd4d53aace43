"""Runner on ONNX Runtime, with its CPU or CUDA execution provider."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moulin.audio.fbank import PADDING_VALUE
from moulin.bundle.onnx_graph import OnnxGraph, TensorSpec
from moulin.bundle.spec import MIN_FRAMES, ModelSpec
from moulin.decoding.network import Floats, Ints
from moulin.engine.device import gpu_index
from moulin.engine.swoosh import rewrite_swoosh
from moulin.errors import EngineError, OptionsError

if TYPE_CHECKING:
    import onnxruntime

# On a CPU a batch wins nothing over one utterance after another (8 to 10 ms for 100 frames of digits-en, whatever the
# batch), and costs padding, cache misses and idle threads at the end. A GPU wants as much as it can get.
_CPU_BATCH_FRAMES = 400
_CUDA_BATCH_FRAMES = 64_000

_LONGEST_MIN_FRAMES = 1024
"""An encoder that does not run with ten seconds of audio does not run."""


class OnnxRuntimeRunner:
    """Encoder, decoder and joiner as ONNX Runtime sessions.

    On the CPU the encoder is there twice: calls that run beside each other get one thread each, which wastes
    nothing on synchronisation, and a call that is alone gets all `threads`. On a GPU only the encoder runs there:
    the decoder and joiner are so small that launching them costs more than computing them here.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        device: str = "cpu",
        threads: int | None = None,
        workers: int | None = None,
        rewrite: bool = True,
    ) -> None:
        """`device` is cpu, cuda or cuda:N; `threads` is the CPU threads to use, by default all that this process may;
        `workers` is how many calls are to run beside each other on a CPU, by default as many as there are threads.

        `rewrite` lets the encoder's graph be put into fewer operators (`swoosh.py`). Raises EngineError where ONNX
        Runtime, the device or the model does not work.
        """
        if threads is not None and threads < 1:
            raise OptionsError(f"Expected at least 1 thread, got {threads}")
        self.spec = spec
        self.device = device
        self._threads = threads or len(os.sched_getaffinity(0))
        self._workers = workers or self._threads
        self._decoder = _session(spec.decoder.file, "cpu", 1)
        self._joiner = _session(spec.joiner.file, "cpu", 1)
        # Not int8: rounding to integers makes whole steps of differences in the last digit, and the tokens would no
        # longer be those of other runtimes.
        encoder = _rewritten(spec.encoder) if rewrite and spec.precision != "int8" else None
        self._encoder = _session(spec.encoder.file, device, 1, encoder)
        self._whole_machine_encoder = (
            self._encoder
            if self.on_cuda or self._threads == 1
            else _session(spec.encoder.file, device, self._threads, encoder)
        )
        self._min_frames = self._find_min_frames()

    @property
    def on_cuda(self) -> bool:
        return self.device != "cpu"

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def num_workers(self) -> int:
        return 1 if self.on_cuda else self._workers

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
        missing = self._min_frames - x.shape[1]
        if missing > 0:
            x = np.pad(x, ((0, 0), (0, missing), (0, 0)), constant_values=PADDING_VALUE)
        encoder_out, *rest = self._run_encoder(self._whole_machine_encoder if alone else self._encoder, x, x_lens)
        lengths = rest[0] if rest else np.full(len(x), encoder_out.shape[1])
        return encoder_out.astype(np.float32, copy=False), lengths.astype(np.int64, copy=False)

    def decoder(self, y: Ints) -> Floats:
        return _run(self._decoder, self._decoder_outputs, [(self._y, y)])[0].astype(np.float32, copy=False)

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        to_encoder, to_decoder = self._joiner_inputs
        inputs: list[tuple[TensorSpec, NDArray[Any]]] = [(to_encoder, encoder_out), (to_decoder, decoder_out)]
        return _run(self._joiner, self._joiner_outputs, inputs)[0].astype(np.float32, copy=False)

    def _run_encoder(self, session: onnxruntime.InferenceSession, x: Floats, x_lens: Ints) -> list[NDArray[Any]]:
        values: list[NDArray[Any]] = [x, x_lens]
        # An export may take no lengths.
        return _run(session, self._encoder_outputs, list(zip(self._encoder_inputs, values, strict=False)))

    def _find_min_frames(self) -> int:
        """The fewest frames that the encoder runs with; `encoder` pads up to them behind the given lengths.

        Most exports run with MIN_FRAMES. Those of causal Zipformers need the whole reach of their convolutions, 121
        frames for digits-en, and ONNX Runtime fails below. Raises EngineError for an encoder that never runs.
        """

        def runs_with(num_frames: int) -> EngineError | None:
            x = np.full((1, num_frames, self.spec.feature_dim), PADDING_VALUE, dtype=np.float32)
            try:
                self._run_encoder(self._encoder, x, np.array([num_frames]))
            except EngineError as error:
                return error
            return None

        if runs_with(MIN_FRAMES) is None:
            return MIN_FRAMES
        too_few, enough = MIN_FRAMES, _LONGEST_MIN_FRAMES
        if error := runs_with(enough):
            raise error
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            too_few, enough = (too_few, middle) if runs_with(middle) is None else (middle, enough)
        return enough

    @cached_property
    def _takes_lengths(self) -> bool:
        return len(self.spec.encoder.inputs) > 1

    @cached_property
    def _encoder_inputs(self) -> list[TensorSpec]:
        encoder = self.spec.encoder
        x = encoder.input("x", 0)
        return [x, encoder.input("x_lens", 1)] if self._takes_lengths else [x]

    @cached_property
    def _encoder_outputs(self) -> list[str]:
        encoder = self.spec.encoder
        names = [encoder.output("encoder_out", 0).name]
        return [*names, encoder.output("encoder_out_lens", 1).name] if len(encoder.outputs) > 1 else names

    @cached_property
    def _y(self) -> TensorSpec:
        return self.spec.decoder.input("y", 0)

    @cached_property
    def _decoder_outputs(self) -> list[str]:
        return [self.spec.decoder.output("decoder_out", 0).name]

    @cached_property
    def _joiner_inputs(self) -> tuple[TensorSpec, TensorSpec]:
        return self.spec.joiner.input("encoder_out", 0), self.spec.joiner.input("decoder_out", 1)

    @cached_property
    def _joiner_outputs(self) -> list[str]:
        return [self.spec.joiner.output("logit", 0).name]


def check_device(device: str) -> None:
    """Raise OptionsError or EngineError where `device` is no device, or this ONNX Runtime cannot use it."""
    if device != "cpu":
        _providers(device, _onnxruntime().get_available_providers())


def _run(
    session: onnxruntime.InferenceSession, outputs: list[str], values: Sequence[tuple[TensorSpec, NDArray[Any]]]
) -> list[NDArray[Any]]:
    inputs = {tensor.name: value.astype(tensor.dtype, copy=False) for tensor, value in values}
    try:
        return session.run(outputs, inputs)  # type: ignore[no-any-return]
    except Exception as error:  # ONNX Runtime has many exception types and no common base but this one
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
        raise EngineError(f"ONNX Runtime failed on {shapes}: {_first_line(error)}") from error


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise EngineError(
            "Running a model needs ONNX Runtime, which is not installed",
            hint="pip install 'moulin[engine]', or 'moulin[gpu]' on a machine with an NVIDIA GPU",
        ) from error
    return onnxruntime


def _rewritten(graph: OnnxGraph) -> bytes | None:
    """The model in a form that runs faster; None where it stays as it is."""
    if graph.external_files:
        return None  # weights outside the file, usually for their size: ONNX Runtime reads them in place
    import onnx

    model = onnx.load(graph.file)
    return model.SerializeToString() if rewrite_swoosh(model) else None


def _session(file: Path, device: str, threads: int, content: bytes | None = None) -> onnxruntime.InferenceSession:
    """A session of the model in `file`, or of `content` in its place."""
    onnxruntime = _onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong comes as an exception too
    # ONNX Runtime would keep a plan of its memory for every input shape that it has ever seen, and lengths of speech
    # hardly repeat: no faster, and it never forgets one.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    providers = _providers(device, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(content or file, options, providers=providers)
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
    index = gpu_index(device)
    if index is None:
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in available:
        raise EngineError(
            f"This ONNX Runtime has no CUDA provider, only {', '.join(available)}",
            hint="pip uninstall onnxruntime && pip install 'moulin[gpu]'",
        )
    cuda = {
        "device_id": index,
        # The default tries every convolution algorithm for every new shape, and every batch has a new shape.
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
