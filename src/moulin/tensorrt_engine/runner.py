"""Offline runner on TensorRT."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from moulin.arrays import Floats, Ints
from moulin.audio.fbank import PADDING_VALUE
from moulin.bundle.spec import ExportedSpec, OnnxModelSpec
from moulin.engine.batching import GPU_BATCH_FRAMES
from moulin.engine.onnxruntime.prediction import OnnxRuntimePrediction
from moulin.errors import EngineError
from moulin.onnx_rewrites.ctc_head import BLANK_OUTPUT
from moulin.tensorrt_engine.loaded_plan import TensorRtPlan


class TensorRtEncoder:
    """A `CtcRunner`: the encoder of an offline model as a plan on a GPU."""

    def __init__(self, spec: ExportedSpec, plan: TensorRtPlan, *, threads: int | None = None) -> None:
        """`threads` are the service's on the CPU. Raises EngineError where the plan is not of the model's encoder."""
        self._plan = plan
        self._threads = threads or len(os.sched_getaffinity(0))
        self._x, self._x_lens = spec.encoder.input("x", 0).name, spec.encoder.input("x_lens", 1).name
        self._frames = frame_outputs(spec)
        self._out_lens = spec.encoder.output("encoder_out_lens", 1).name
        check_tensors(plan, {self._x, self._x_lens}, {*self._frames, self._out_lens})
        reaches = [profile[self._x] for profile in plan.profiles]
        self.max_batch = min(reach.largest[0] for reach in reaches)
        self.min_frames = min(reach.least[1] for reach in reaches)
        self.max_frames = max(reach.largest[1] for reach in reaches)

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:  # noqa: ARG002
        missing = self.min_frames - x.shape[1]
        if missing > 0:
            x = np.pad(x, ((0, 0), (0, missing), (0, 0)), constant_values=PADDING_VALUE)
        found = [
            self._run(x[first : first + self.max_batch], x_lens[first : first + self.max_batch])
            for first in range(0, len(x), self.max_batch)
        ]
        return np.concatenate([rows for rows, _ in found]), np.concatenate([lengths for _, lengths in found])

    def tensors(self, x: Floats, x_lens: Ints) -> dict[str, Tensor]:
        """The plan's inputs on its device; to be called within its `computing`."""
        return {
            name: torch.from_numpy(value).to(self._plan.device)
            for name, value in ((self._x, x), (self._x_lens, x_lens))
        }

    def _run(self, x: Floats, x_lens: Ints) -> tuple[Floats, Ints]:
        with self._plan.computing():
            found = self._plan.run(self.tensors(x, x_lens))
            return frames_of(found, self._frames).cpu().numpy(), found[self._out_lens].long().cpu().numpy()

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def num_workers(self) -> int:
        return 1

    @property
    def max_batch_frames(self) -> int:
        return GPU_BATCH_FRAMES


class TensorRtRunner(TensorRtEncoder, OnnxRuntimePrediction):
    """A `Runner`: the encoder as a plan on a GPU, decoder and joiner as ONNX Runtime sessions on the CPU."""

    def __init__(self, spec: OnnxModelSpec, plan: TensorRtPlan, *, threads: int | None = None) -> None:
        """As for `TensorRtEncoder`."""
        OnnxRuntimePrediction.__init__(self, spec)
        TensorRtEncoder.__init__(self, spec, plan, threads=threads)


def frame_outputs(spec: ExportedSpec) -> list[str]:
    """The plan's outputs that together are a search's frames: of a transducer with a CTC head with the channel of blank
    (`moulin.decoding.blank_skip`)."""
    return [spec.out] if spec.ctc_output is None else [spec.out, BLANK_OUTPUT]


def frames_of(found: Mapping[str, Tensor], outputs: Sequence[str]) -> Tensor:
    """The plan's `outputs` side by side, float32 [N, T', channels]."""
    return torch.cat([found[name].float() for name in outputs], dim=-1)


def check_tensors(plan: TensorRtPlan, inputs: set[str], outputs: set[str]) -> None:
    """Raise EngineError where `plan` has other inputs or outputs."""
    for what, wanted, found in (("inputs", inputs, plan.inputs), ("outputs", outputs, plan.outputs)):
        if wanted != set(found):
            raise EngineError(
                f"Expected {plan.file} to have the {what} {', '.join(sorted(wanted))}, got {', '.join(sorted(found))}",
                hint="build this model's engine with `moulin trt build`",
            )
