"""The component `encoder` of a streaming model in python: x, states to encoder_out, new_states, and of a transducer
with a CTC head blank_log_probs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moulin.bundle.files import Precision
from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.spec import StateSpec, StreamingSpec
from moulin.engine.onnxruntime.checked_rewrite import open_checked
from moulin.engine.onnxruntime.session import run
from moulin.engine.together import answer_together
from moulin.errors import MoulinError
from moulin.onnx_rewrites.packed_states import NEW_STATES, STATES
from moulin.triton_repo.ensemble.part import Tensors

_INPUTS = "x", STATES


class PackedEncoderPart:
    """Runs the encoder on all rows of all requests in one call. Keeps no states: they come and go with a request."""

    def __init__(
        self, graph: OnnxGraph, outputs: Sequence[str], *, precision: Precision, device: str, threads: int
    ) -> None:
        """`outputs` are the component's names for those of `graph`, in its order. Raises EngineError where ONNX
        Runtime, the device or the model does not work."""
        self._outputs, self._in_graph = outputs, [tensor.name for tensor in graph.outputs]
        self._inputs = [graph.input(name, position) for position, name in enumerate(_INPUTS)]
        (_, window, feature_dim), (_, size) = (tensor.shape for tensor in self._inputs)
        states = StateSpec(STATES, "float32", (1, int(size)), 0, NEW_STATES)
        self._session, _ = open_checked(
            graph,
            device,
            threads,
            feature_dim=int(feature_dim),
            precision=precision,
            # The distance of windows does not matter for the comparison.
            streaming=StreamingSpec(int(window), int(window), (states,)),
        )

    def answer(self, requests: Sequence[Tensors]) -> list[Tensors | MoulinError]:
        return list(answer_together(requests, self._run, what="The encoder"))

    def close(self) -> None:
        pass

    def _run(self, requests: Sequence[Tensors]) -> list[Tensors]:
        values = [np.concatenate([request[name] for request in requests]) for name in _INPUTS]
        found = run(self._session, self._in_graph, list(zip(self._inputs, values, strict=True)))
        ends = np.cumsum([len(request["x"]) for request in requests])[:-1]
        rows = [np.split(value.astype(np.float32, copy=False), ends) for value in found]
        return [dict(zip(self._outputs, answer, strict=True)) for answer in zip(*rows, strict=True)]
