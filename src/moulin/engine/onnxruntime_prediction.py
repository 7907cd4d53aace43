"""The decoder (predictor) and joiner on ONNX Runtime, the same offline and streaming."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from moulin.bundle.onnx_graph import TensorSpec
from moulin.bundle.spec import OnnxModelSpec
from moulin.decoding.network import Floats, Ints
from moulin.engine.onnxruntime_session import new_session, run


class OnnxRuntimePrediction:
    """A `PredictionNetwork`. Always on the CPU with one thread: both networks are so small that launching them on a GPU
    costs more than computing them here.
    """

    def __init__(self, spec: OnnxModelSpec) -> None:
        """Raises EngineError where ONNX Runtime or the model does not work."""
        self.spec = spec
        self._decoder = new_session(spec.decoder.file, "cpu", 1)
        self._joiner = new_session(spec.joiner.file, "cpu", 1)

    @property
    def context_size(self) -> int:
        return self.spec.context_size

    @property
    def skipped_ids(self) -> tuple[int, ...]:
        return self.spec.tokens.skipped_ids

    def decoder(self, y: Ints) -> Floats:
        return run(self._decoder, self._decoder_outputs, [(self._y, y)])[0].astype("float32", copy=False)

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        to_encoder, to_decoder = self._joiner_inputs
        inputs: list[tuple[TensorSpec, NDArray[Any]]] = [(to_encoder, encoder_out), (to_decoder, decoder_out)]
        return run(self._joiner, self._joiner_outputs, inputs)[0].astype("float32", copy=False)

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
