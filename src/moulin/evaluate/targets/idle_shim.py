"""What Triton loads to measure the way in: moulin's streaming service over a stepper without a model. Runs inside
Triton's stub process."""

from __future__ import annotations

from moulin.bundle.load import load_bundle
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.evaluate.idle_stepper import idle_recognizer
from moulin.triton_repo import streaming_shim
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions


class TritonPythonModel(streaming_shim.TritonPythonModel):
    """The service, whose recognizer does nothing."""

    def _open(self, parameters: ShimParameters[StreamingOptions], capacity: int) -> StreamRecognizer:
        return idle_recognizer(load_bundle(parameters.encoder.parent, expect="streaming"), capacity)
