"""The decoder (predictor) and joiner on ONNX Runtime, for offline and streaming models."""

from __future__ import annotations

from moulin.arrays import Floats, Ints
from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.spec import OnnxModelSpec
from moulin.engine.onnxruntime.session import new_session, run

DECODER, JOINER = (("y",), "decoder_out"), (("encoder_out", "decoder_out"), "logit")
"""Names of the inputs, in Icefall's order, and name of the output."""


class OnnxRuntimeNetwork:
    """A decoder or joiner, always on one CPU thread: both are so small that a launch on a GPU costs more than the
    computation.
    """

    def __init__(self, graph: OnnxGraph, names: tuple[tuple[str, ...], str]) -> None:
        """`names` is DECODER or JOINER. Raises EngineError where ONNX Runtime or the model does not work."""
        inputs, output = names
        self._session = new_session(graph.file, "cpu", 1)
        self._inputs = [graph.input(name, position) for position, name in enumerate(inputs)]
        self._outputs = [graph.output(output, 0).name]

    def __call__(self, *values: Floats | Ints) -> Floats:
        """Inputs [N, ...] to the output float32 [N, ...]."""
        (output,) = run(self._session, self._outputs, list(zip(self._inputs, values, strict=True)))
        return output.astype("float32", copy=False)


class OnnxRuntimePrediction:
    """A `PredictionNetwork`."""

    def __init__(self, spec: OnnxModelSpec) -> None:
        """Raises EngineError where ONNX Runtime or the model does not work."""
        self.spec = spec
        self._decoder = OnnxRuntimeNetwork(spec.decoder, DECODER)
        self._joiner = OnnxRuntimeNetwork(spec.joiner, JOINER)

    @property
    def context_size(self) -> int:
        return self.spec.context_size

    @property
    def skipped_ids(self) -> tuple[int, ...]:
        return self.spec.tokens.skipped_ids

    def decoder(self, y: Ints) -> Floats:
        return self._decoder(y)

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        return self._joiner(encoder_out, decoder_out)
