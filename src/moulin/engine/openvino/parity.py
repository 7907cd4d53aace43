"""OpenVINO's encoders against ONNX Runtime's on speech, before they may serve."""

from __future__ import annotations

from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.precision import Precision
from moulin.bundle.spec import StreamingSpec
from moulin.engine.graph_parity import largest_difference
from moulin.engine.onnxruntime.session import plain_session
from moulin.engine.openvino.compiled import CompiledModel
from moulin.errors import EngineError

TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "bf16": 0.05, "int8": 0.06}
"""The largest difference that rounding explains (`graph_parity`). Bfloat16 has eight bits: rounding the weights of
digits-en alone gives a hundredth. ONNX Runtime, with which an int8 file is compared, rounds activations to eight
bits."""

STREAM_TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "bf16": 0.25, "int8": 0.25}
"""The same of streams, whose states are values from within the network: of digits-en in bfloat16 they differ by up to
0.15 where the encoder's frames differ by 0.03, and no word changes."""

_LENGTHS = (297, 203, 124)
"""Lengths in frames that leave different remainders in every downsampling by 2, 4 and 8."""


def check_parity(
    graph: OnnxGraph,
    model: CompiledModel,
    precision: Precision,
    *,
    feature_dim: int,
    streaming: StreamingSpec | None = None,
) -> None:
    """Raise EngineError where `model`, compiled from `graph`, gives on speech what rounding to `precision` does not
    explain."""
    difference = largest_difference(
        plain_session(graph.file).run, model.run, graph, feature_dim=feature_dim, streaming=streaming, lengths=_LENGTHS
    )
    tolerance = (STREAM_TOLERANCES if streaming else TOLERANCES)[precision]
    if not difference <= tolerance:
        raise EngineError(
            f"{graph.file} on OpenVINO in {precision} differs from ONNX Runtime by {difference:.1e} on speech, and "
            f"rounding explains at most {tolerance:.1g}",
            hint="leave out --engine openvino, and report it with the recipe's name",
        )
