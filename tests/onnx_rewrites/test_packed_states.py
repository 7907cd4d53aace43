from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from moulin.bundle.load import load_bundle
from moulin.bundle.spec import StreamingSpec
from moulin.demo.files import DEMO_STREAMING_MODEL
from moulin.onnx_rewrites.packed_states import NEW_STATES, STATES, pack_states, packed_size
from tests.bundles import BUNDLES, STREAMING

CHUNKS = 20


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def zeros(streaming: StreamingSpec, batch: int) -> dict[str, Any]:
    return {
        state.name: np.zeros(
            [batch if axis == state.batch_axis else size for axis, size in enumerate(state.shape)], state.dtype
        )
        for state in streaming.states
    }


@pytest.mark.parametrize(
    "folder", [*(BUNDLES / name for name in STREAMING), DEMO_STREAMING_MODEL], ids=lambda f: f.name
)
def test_chunk_after_chunk_it_says_what_the_graph_says(folder: Any) -> None:
    """Of three streams, of which one begins later and thus has other counts."""
    spec = load_bundle(folder)
    streaming = spec.streaming
    assert streaming is not None
    model = onnx.load(spec.encoder.file)
    plain, packed = session(model), session(pack_states(model, streaming))
    assert [tensor.name for tensor in packed.get_inputs()] == ["x", STATES]
    assert [tensor.name for tensor in packed.get_outputs()] == ["encoder_out", NEW_STATES]
    size = packed_size(streaming)
    assert size == sum(state.size_bytes // np.dtype(state.dtype).itemsize for state in streaming.states)

    states, rows = zeros(streaming, 3), np.zeros((3, size), np.float32)
    rng = np.random.default_rng(0)
    for chunk in range(CHUNKS):
        if chunk == 4:  # another stream takes the last row
            rows[2] = 0
            for state in streaming.states:
                np.moveaxis(states[state.name], state.batch_axis, 0)[2] = 0
        x = rng.normal(-6, 4, (3, streaming.window_frames, 80)).astype(np.float32)
        expected, *following = plain.run(None, {"x": x, **states})
        found, rows = packed.run(None, {"x": x, STATES: rows})
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
        returned = dict(zip([tensor.name for tensor in plain.get_outputs()][1:], following, strict=True))
        for state in streaming.states:
            states[state.name] = (
                states[state.name] + state.increment if state.output is None else returned[state.output]
            )
    batch_first = [np.moveaxis(states[state.name], state.batch_axis, 0).reshape(3, -1) for state in streaming.states]
    np.testing.assert_allclose(rows, np.concatenate(batch_first, axis=1), atol=1e-4, rtol=0)
