"""Streaming runner on TensorRT."""

from __future__ import annotations

import torch

from moulin.arrays import Floats, Ints
from moulin.audio.batched_fbank import BatchedFbank
from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import ExportedSpec, OnnxModelSpec
from moulin.engine.onnxruntime.fbank import OnnxRuntimeFbank
from moulin.engine.onnxruntime.prediction import OnnxRuntimePrediction
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_runner import check_counts
from moulin.errors import BundleError
from moulin.onnx_rewrites.packed_states import NEW_STATES, STATES, packed_size
from moulin.tensorrt_engine.loaded_plan import TensorRtPlan
from moulin.tensorrt_engine.runner import check_tensors, frame_outputs, frames_of


class TensorRtStreamEncoder:
    """A `StreamEncoder`: the encoder as a plan, with the states of all streams on its GPU, float32 [capacity, S], one
    row for each stream (`packed_states`). Features are computed on the CPU."""

    def __init__(
        self,
        spec: ExportedSpec,
        plan: TensorRtPlan,
        *,
        capacity: int,
        max_batch: int | None = None,
    ) -> None:
        """`capacity` is the limit on open streams, `max_batch` on streams in an encoder batch (the plan's largest batch
        is a limit too). Raises EngineError where the plan is not of the model's encoder."""
        if spec.streaming is None:
            raise BundleError(f"Expected a streaming model, got the {spec.mode} {spec.family} in {spec.path}")
        check_counts({"streams": capacity, "streams in a batch": max_batch})
        self._plan = plan
        self._x, self._frames = spec.encoder.input("x", 0).name, frame_outputs(spec)
        check_tensors(plan, {self._x, STATES}, {*self._frames, NEW_STATES})
        most = min(profile[self._x].largest[0] for profile in plan.profiles)
        self.limits = StepLimits(capacity, min(max_batch or most, most))
        with plan.computing():
            self._states = torch.zeros(capacity, packed_size(spec.streaming), device=plan.device)
        self._fbank = OnnxRuntimeFbank(BatchedFbank(FbankOptions(num_mel_bins=spec.feature_dim)), "cpu")

    def fbank(self, frames: Floats) -> Floats:
        return self._fbank(frames)

    def encoder(self, x: Floats, slots: Ints) -> Floats:
        with self._plan.computing():
            windows, rows = (torch.from_numpy(array).to(self._plan.device) for array in (x, slots))
            parts = [
                slice(first, first + self.limits.max_batch) for first in range(0, len(slots), self.limits.max_batch)
            ]
            found = [self._plan.run({self._x: windows[part], STATES: self._states[rows[part]]}) for part in parts]
            encoder_out: Floats = torch.cat([frames_of(step, self._frames) for step in found]).cpu().numpy()
            self._states[rows] = torch.cat([step[NEW_STATES] for step in found])  # after all batches have succeeded
            return encoder_out

    def reset(self, slots: Ints) -> None:
        with self._plan.computing():
            self._states[torch.from_numpy(slots).to(self._plan.device)] = 0


class TensorRtStreamRunner(TensorRtStreamEncoder, OnnxRuntimePrediction):
    """A `StreamRunner`: decoder and joiner are ONNX Runtime sessions on the CPU."""

    def __init__(self, spec: OnnxModelSpec, plan: TensorRtPlan, *, capacity: int, max_batch: int | None = None) -> None:
        """As for `TensorRtStreamEncoder`."""
        TensorRtStreamEncoder.__init__(self, spec, plan, capacity=capacity, max_batch=max_batch)
        OnnxRuntimePrediction.__init__(self, spec)
