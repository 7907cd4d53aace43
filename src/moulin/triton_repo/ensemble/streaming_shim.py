"""The python-backend model that ties a streaming model's components together. Runs inside Triton's stub process."""

from __future__ import annotations

from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.triton_repo import streaming_shim
from moulin.triton_repo.ensemble.component_shim import ask
from moulin.triton_repo.ensemble.open_part import open_tied_streams
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions


class TritonPythonModel(streaming_shim.TritonPythonModel):
    """The fused model, with its networks served as other Triton models."""

    def _open(self, parameters: ShimParameters[StreamingOptions], capacity: int) -> StreamRecognizer:
        # Not warmed up: other models cannot be called before all are loaded.
        return open_tied_streams(parameters, ask, capacity=capacity)
