"""Encoders of any length against Icefall's exports, and beyond their end against the checkpoint they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from moulin.bundle.load import load_bundle
from moulin.bundle.onnx_graph import read_onnx_graph
from moulin.bundle.transducer import load_transducer
from moulin.onnx_rewrites.positions import compute_positions, encodings
from moulin.onnx_rewrites.variants import in_half_precision
from tests.bundles import BUNDLES

ZIPFORMER2 = ("zipformer2-offline", "zipformer2-offline-pos8", "zipformer2-ctc-offline")


def exported(name: str) -> onnx.ModelProto:
    return onnx.load(load_bundle(BUNDLES / name).encoder.file)


def features(frames: int) -> NDArray[Any]:
    return np.random.default_rng(frames).normal(-5, 3, (2, frames, 80)).astype(np.float32)


def encoded(model: onnx.ModelProto, x: NDArray[Any]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    lengths = np.array([x.shape[1], x.shape[1] - 3])
    return np.asarray(session.run(["encoder_out"], {"x": x, "x_lens": lengths})[0])


@pytest.mark.parametrize(
    ("name", "frames"), [*((name, 501) for name in ZIPFORMER2), *((ZIPFORMER2[0], n) for n in (9, 4008))]
)
def test_up_to_the_table_s_end_nothing_changes(name: str, frames: int) -> None:
    model = exported(name)
    expected = encoded(model, features(frames))
    assert compute_positions(model) == 3 - ("pos8" in name)
    onnx.checker.check_model(model)
    np.testing.assert_allclose(encoded(model, features(frames)), expected, atol=2e-5)
    assert compute_positions(model) == 0


def test_beyond_it_they_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    name = "zipformer2-offline"
    model = exported(name)
    compute_positions(model)
    onnx.save(model, tmp_path / "encoder.onnx")
    assert read_onnx_graph(tmp_path / "encoder.onnx").max_positions is None
    x = features(4100)
    transducer = load_transducer([BUNDLES / name / "epoch-1.pt"])
    with torch.inference_mode():
        output, _ = transducer.encoder(torch.from_numpy(x), torch.tensor([4100, 4097]))
        expected = transducer.joiner.encoder_proj(output).numpy()
    np.testing.assert_allclose(encoded(model, x), expected, atol=2e-4 * np.abs(expected).max())


def test_of_half_precision_too() -> None:
    model = in_half_precision(exported("zipformer2-offline"))
    expected = encoded(model, features(300))
    assert compute_positions(model) == 3
    np.testing.assert_allclose(encoded(model, features(300)), expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["zipformer-offline", "conformer-offline", "lstm-streaming"])
def test_other_graphs_stay(name: str) -> None:
    model = exported(name)
    before = model.SerializeToString(deterministic=True)
    assert compute_positions(model) == 0
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(("rows", "dims"), [(1999, 2), (1999, 3), (3999, 2), (3, 2)])
def test_tables_of_other_lengths_and_ranks(rows: int, dims: int) -> None:
    """Exports of 2023 have 1,999 rows, 20 s."""
    table = encodings(rows, 48).astype(np.float32)
    assert compute_positions(sliced(table[None] if dims == 3 else table)) == 1


@pytest.mark.parametrize(
    "table",
    [
        np.zeros((1999, 48), np.float32),
        encodings(1999, 48).astype(np.float32)[:-1],
        encodings(1999, 48).astype(np.float32) + 0.01,
        encodings(1999, 48),
        np.ones((1999, 47), np.float32),
        np.ones((0, 48), np.float32),
    ],
    ids=["zeros", "even", "shifted", "double", "odd width", "empty"],
)
def test_other_tables_stay(table: NDArray[Any]) -> None:
    assert compute_positions(sliced(table)) == 0


def sliced(table: NDArray[Any]) -> onnx.ModelProto:
    """`table` from `start` to `end`."""
    axis = numpy_helper.from_array(np.array([table.ndim - 2], np.int64), "axis")
    graph = helper.make_graph(
        [helper.make_node("Slice", ["table", "start", "end", "axis"], ["y"])],
        "sliced",
        [helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in ("start", "end")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(table, "table"), axis],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
