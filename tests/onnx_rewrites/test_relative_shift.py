"""Relative shifts by reshapes, against those that gather."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from moulin.bundle.load import load_bundle
from moulin.onnx_rewrites.relative_shift import shift_without_gather
from tests.bundles import BUNDLES, OFFLINE

HEADS, WIDTH = 3, 2
SHIFTS = {"zipformer2-offline": 4, "zipformer-offline": 4, "conformer-offline": 2}
"""Layers, as counted in the graphs."""


def graph(*, past: int = 0, falls: int = -1, opset: int = 13) -> onnx.ModelProto:
    """Queries [heads, N, T, width] and distances [N, n, heads, width] to scores by frame [heads, N, T, T + past], as
    Icefall gathers them; n is 2 T + past - 1."""
    constants = {"zero": 0, "one": 1, "falls": falls, "past": past}
    vectors = {"last": [-1], "first": [0], "of_heads": [HEADS], "two": [2], "three": [3]}
    nodes = [
        helper.make_node("Transpose", ["distances"], ["d"], perm=[2, 0, 3, 1]),
        helper.make_node("MatMul", ["queries", "d"], ["scores"]),
        helper.make_node("Shape", ["scores"], ["shape"]),
        helper.make_node("Gather", ["shape", "three"], ["n"]),
        helper.make_node("Gather", ["shape", "two"], ["frames1"]),
        helper.make_node("Gather", ["shape", "one"], ["batch"]),
        helper.make_node("Squeeze", ["frames1", "first"], ["frames"]),
        helper.make_node("Add", ["frames", "past"], ["columns"]),
        helper.make_node("Sub", ["frames", "one"], ["last_frame"]),
        helper.make_node("Range", ["last_frame", "falls", "falls"], ["rows"]),
        helper.make_node("Unsqueeze", ["batch", "first"], ["batch1"]),
        helper.make_node("Mul", ["batch1", "of_heads"], ["repeats"]),
        helper.make_node("Tile", ["rows", "repeats"], ["all_rows"]),
        helper.make_node("Unsqueeze", ["all_rows", "last"], ["starts"]),
        helper.make_node("Range", ["zero", "columns", "one"], ["steps"]),
        helper.make_node("Add", ["starts", "steps"], ["indices"]),
        helper.make_node("Concat", ["last", "n"], ["by_row"], axis=0),
        helper.make_node("Reshape", ["scores", "by_row"], ["flat"]),
        helper.make_node("GatherElements", ["flat", "indices"], ["gathered"], axis=1),
        helper.make_node("Unsqueeze", ["columns", "first"], ["columns1"]),
        helper.make_node("Concat", ["of_heads", "batch1", "frames1", "columns1"], ["target"], axis=0),
        helper.make_node("Reshape", ["gathered", "target"], ["y"]),
    ]
    initializers = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()]
    initializers += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in vectors.items()]
    inputs: dict[str, list[str | int]] = {"queries": [HEADS, "N", "T", WIDTH], "distances": ["N", "n", HEADS, WIDTH]}
    model = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [HEADS, "N", "T", "K"])],
        initializers,
    )
    return helper.make_model(model, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("past", [0, 1, 5])
def test_by_the_definition(past: int) -> None:
    """Frame t attends to column c by the score of the distance T - 1 - t + c, down to a single frame."""
    model = graph(past=past)
    assert shift_without_gather(model) == 1
    onnx.checker.check_model(model)
    assert "GatherElements" not in [node.op_type for node in model.graph.node]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for batch, frames in [(1, 1), (2, 1), (1, 2), (2, 3), (3, 8)]:
        queries = rng.normal(size=(HEADS, batch, frames, WIDTH)).astype(np.float32)
        distances = rng.normal(size=(batch, 2 * frames + past - 1, HEADS, WIDTH)).astype(np.float32)
        (found,) = session.run(None, {"queries": queries, "distances": distances})
        wanted = [
            [np.einsum("hbw,bhw->hb", queries[:, :, t], distances[:, frames - 1 - t + c]) for c in range(frames + past)]
            for t in range(frames)
        ]
        np.testing.assert_allclose(found, np.transpose(wanted, (2, 3, 0, 1)), rtol=1e-5, atol=1e-5)
    assert shift_without_gather(model) == 0


@pytest.mark.parametrize("model", [graph(falls=-2), graph(opset=12)])
def test_what_is_left_alone(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert shift_without_gather(model) == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize("name", OFFLINE)
def test_exports(name: str) -> None:
    """The same to the last bit, for lengths with and without a remainder in every downsampling."""
    file = load_bundle(BUNDLES / name).encoder.file
    model = onnx.load(file)
    assert shift_without_gather(model) == SHIFTS[name]
    onnx.checker.check_model(model)
    plain, rewritten = (
        onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
        for source in (file, model.SerializeToString())
    )
    x_lens = np.array([160, 133])
    for frames in (160, 167):
        x = np.random.default_rng(0).normal(-6, 4, (2, frames, plain.get_inputs()[0].shape[2])).astype(np.float32)
        wanted, found = (session.run(None, {"x": x, "x_lens": x_lens}) for session in (plain, rewritten))
        for one, other in zip(wanted, found, strict=True):
            np.testing.assert_array_equal(other, one)
