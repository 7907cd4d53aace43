"""Streaming runner on TensorRT."""

from __future__ import annotations

import torch

from moulin.arrays import Floats, Ints
from moulin.audio.batched_fbank import BatchedFbank
from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import OnnxModelSpec
from moulin.engine.onnxruntime.fbank import OnnxRuntimeFbank
from moulin.engine.onnxruntime.prediction import OnnxRuntimePrediction
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_runner import check_counts
from moulin.errors import BundleError
from moulin.onnx_rewrites.packed_states import NEW_STATES, STATES, packed_size
from moulin.tensorrt_engine.loaded_plan import TensorRtPlan
from moulin.tensorrt_engine.runner import check_tensors


class TensorRtStreamRunner(OnnxRuntimePrediction):
    """A `StreamRunner`: the encoder as a plan, with the states of all streams on its GPU, float32 [capacity, S], one
    row for each stream (`packed_states`). Features, decoder and joiner are computed on the CPU."""

    def __init__(
        self,
        spec: OnnxModelSpec,
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
        super().__init__(spec)
        self._plan = plan
        self._x, self._out = spec.encoder.input("x", 0).name, spec.encoder.output("encoder_out", 0).name
        check_tensors(plan, {self._x, STATES}, {self._out, NEW_STATES})
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
            encoder_out: Floats = torch.cat([step[self._out].float() for step in found]).cpu().numpy()
            self._states[rows] = torch.cat([step[NEW_STATES] for step in found])  # after all batches have succeeded
            return encoder_out

    def reset(self, slots: Ints) -> None:
        with self._plan.computing():
            self._states[torch.from_numpy(slots).to(self._plan.device)] = 0
