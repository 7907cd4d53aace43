"""Sessions of encoders that are rewritten for speed, each compared with its file on speech before it may run.

The comparison costs as much as loading the file once more without ONNX Runtime's own optimisations, and three seconds
of audio on either.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from moulin.bundle.files import Precision
from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.spec import StreamingSpec
from moulin.engine.graph_parity import largest_difference
from moulin.engine.onnxruntime.session import new_session, plain_session, rewritten_encoder
from moulin.errors import first_line

if TYPE_CHECKING:
    import onnxruntime

logger = logging.getLogger(__name__)

TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "int8": 6e-2}
"""The largest difference between a rewritten encoder and its file (`graph_parity`). Rounding to integers turns
differences in the last digit into whole steps: digits-en's file as it is differs by 0.027 from itself, with ONNX
Runtime's own optimisations and without, and rewritten by 0.020."""


def open_checked(
    graph: OnnxGraph,
    device: str,
    threads: int,
    *,
    feature_dim: int,
    precision: Precision,
    rewrite: bool = True,
    streaming: StreamingSpec | None = None,
    fixed_shapes: bool = False,
) -> tuple[onnxruntime.InferenceSession, bytes | None]:
    """A session of the encoder `graph`, and the rewritten model that it runs; None where it runs the file as it is.

    On a CPU a rewritten encoder that does not load, or differs from the file by more than TOLERANCES, is left for the
    file, with a warning in the log. Raises EngineError as `new_session` does.
    """

    def opened(content: bytes | None) -> onnxruntime.InferenceSession:
        return new_session(
            graph.file,
            device,
            threads,
            content,
            few_shapes=streaming is not None,
            fixed_shapes=fixed_shapes,
            precision=precision,
        )

    if not rewrite:
        return opened(None), None
    if device != "cpu":
        content = rewritten_encoder(graph, precision, device, fixed_shapes=fixed_shapes)
        return opened(content), content
    try:
        content = rewritten_encoder(graph, precision, device)
        if content is None:
            return opened(None), None
        session = opened(content)
        difference = largest_difference(
            plain_session(graph.file).run, session.run, graph, feature_dim=feature_dim, streaming=streaming
        )
    # Of a damaged graph anything may be raised, and ONNX Runtime's exceptions have no other base.
    except Exception as error:
        logger.warning("%s runs as it was exported: rewritten it does not run: %s", graph.file, first_line(error))
        return opened(None), None
    if difference > TOLERANCES[precision]:
        logger.warning(
            "%s runs as it was exported: rewritten to be faster it differs by %.1e on speech", graph.file, difference
        )
        return opened(None), None
    return session, content
