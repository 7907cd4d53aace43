"""Encoders for `moulin bench encoder`: a model's encoder by each of the engines, with the clock around the same work.

An encoder is prepared with a batch, outside the clock, and then called again and again. By default a call takes
features from the host's memory and leaves encoder frames there. With `on_device` both stay where the encoder runs, as
where features are computed there too; a call then ends when the device is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Protocol, get_args

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.bundle.files import Precision
from moulin.bundle.spec import FRAME_SHIFT_SEC, CheckpointSpec, ModelSpec, OnnxModelSpec
from moulin.demo.files import demo_speech
from moulin.engine.exported_encoder import ExportedEncoder
from moulin.engine.onnxruntime.encoder import OnnxRuntimeEncoder
from moulin.errors import EngineError, OptionsError, first_line
from moulin.models.engine_choice import Engine, EngineChoice
from moulin.models.engines import choose_engine

Kind = Engine | Literal["onnxruntime-exported", "torch-compiled", "gpu"]
KINDS: tuple[Kind, ...] = (*get_args(Engine), "onnxruntime-exported", "torch-compiled", "gpu")
"""The engines, of which torch runs a checkpoint's plain modules; the file as it was exported, which is what sherpa-onnx
runs; the modules through PyTorch's compiler; our GPU engine."""
CHECKPOINT_KINDS: tuple[Kind, ...] = ("torch", "torch-compiled", "gpu")

Call = Callable[[], object]


class MeasuredEncoder(Protocol):
    def prepare(self, x: Floats, x_lens: Ints) -> Call:
        """A call that encodes features float32 [N, T, feature_dim] and lengths int64 [N], and returns when the output
        is there. It raises EngineError."""


def open_encoder(
    spec: ModelSpec,
    kind: Kind | None,
    *,
    device: str,
    threads: int | None,
    on_device: bool,
    precision: Precision | None = None,
    max_batch: int = 1,
    num_frames: int = 1000,
) -> tuple[Kind, MeasuredEncoder]:
    """The encoder of the offline model `spec`; without a `kind` by the usual engine. For TensorRT an engine is built in
    `precision` for the batches that come. Raises as the engines do."""
    chosen: Kind = (
        kind
        if kind == "torch-compiled" or kind == "gpu" or kind == "onnxruntime-exported"
        else choose_engine(spec, kind)
    )
    if chosen in CHECKPOINT_KINDS:
        if not isinstance(spec, CheckpointSpec):
            raise OptionsError(f"The runner {chosen} takes checkpoints, and {spec.path} holds ONNX files")
        from moulin.evaluate.torch_encoders import GpuEngineEncoder, ModulesEncoder
        from moulin.models.engines import check_gpu_engine

        spec = replace(spec, run_in=precision) if precision else spec
        if chosen != "gpu":
            compiled = chosen == "torch-compiled"
            return chosen, ModulesEncoder(spec, device=device, threads=threads, on_device=on_device, compiled=compiled)
        if device == "cpu":
            raise OptionsError("The runner gpu runs on a GPU only", hint="add --device cuda")
        check_gpu_engine(device)
        return chosen, GpuEngineEncoder(spec, device=device, on_device=on_device)
    assert isinstance(spec, OnnxModelSpec)
    if chosen == "tensorrt":
        from moulin.evaluate.torch_encoders import PlanEncoder
        from moulin.tensorrt_engine.ready_plan import open_plan, ready_plan

        device, longest = EngineChoice("tensorrt", device).runs_on, num_frames * FRAME_SHIFT_SEC
        plan = ready_plan(
            spec, device=device, speech=demo_speech, precision=precision, max_batch=max_batch, max_audio_sec=longest
        )
        return chosen, PlanEncoder(spec, open_plan(spec, plan, device=device), on_device=on_device)
    if chosen == "openvino":
        if on_device or device != "cpu":
            raise OptionsError("The runner openvino runs on the CPU only", hint="leave out --on-device and --device")
        from moulin.engine.openvino.encoder import OpenVinoEncoder

        on_openvino = OpenVinoEncoder(
            spec.encoder,
            feature_dim=spec.feature_dim,
            precision=precision or "fp32",
            threads=threads,
            max_frames=spec.max_frames,
        )
        return chosen, OnnxEncoder(on_openvino)
    encoder = OnnxRuntimeEncoder(
        spec.encoder,
        feature_dim=spec.feature_dim,
        precision=spec.precision,
        device=device,
        threads=threads,
        rewrite=chosen != "onnxruntime-exported",
        # Where nothing is copied, the encoder is to show its best; a service's batches have other shapes all the time.
        fixed_shapes=on_device,
    )
    return chosen, BoundOnnxEncoder(encoder) if on_device else OnnxEncoder(encoder)


class OnnxEncoder:
    def __init__(self, encoder: ExportedEncoder) -> None:
        self._encoder = encoder

    def prepare(self, x: Floats, x_lens: Ints) -> Call:
        return lambda: self._encoder.encoder(x, x_lens, alone=True)


class BoundOnnxEncoder:
    """An encoder by ONNX Runtime's I/O binding: inputs and outputs in the memory of its device."""

    def __init__(self, encoder: OnnxRuntimeEncoder) -> None:
        self._encoder = encoder

    def prepare(self, x: Floats, x_lens: Ints) -> Call:
        binding, session = self._encoder.bound(x, x_lens)

        def call() -> Any:
            try:
                session.run_with_iobinding(binding)
                binding.synchronize_outputs()
            except Exception as error:  # ONNX Runtime has many exception types and no common base but this one
                raise EngineError(f"ONNX Runtime failed on x {list(np.shape(x))}: {first_line(error)}") from error
            return binding.get_outputs()

        return call
