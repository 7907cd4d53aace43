from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from moulin.bundle.onnx_files import OnnxFiles
from moulin.export.parity import _summary, compare

from .conftest import Exported

SPEECH = [np.random.default_rng(5).normal(-5, 3, (777, 80)).astype(np.float32)]


def test_what_was_exported_holds(exported: Exported) -> None:
    found = list(compare(exported.transducer, exported.files, exported.layout, SPEECH))
    assert [comparison.what for comparison in found] == ["encoder", "decoder", "joiner"]
    assert all(comparison.holds for comparison in found), found
    assert all(0 < comparison.largest_error < 1e-4 for comparison in found), found


@pytest.mark.parametrize("exported", ["conformer-offline", "lstm-streaming"], indirect=True)
def test_a_weight_that_differs_is_found(exported: Exported) -> None:
    """In each of the three files: a hundredth of a weight is not rounding."""
    for part in ("encoder", "decoder", "joiner"):
        file = getattr(exported.files, part)
        model = onnx.load(file)
        largest = max(
            (tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT),
            key=lambda tensor: numpy_helper.to_array(tensor).size,
        )
        weight = numpy_helper.to_array(largest)
        # Each value by itself: a norm behind it would take out a common factor.
        noise = np.random.default_rng(0).standard_normal(weight.shape, dtype=np.float32)
        largest.CopyFrom(numpy_helper.from_array(weight + np.float32(0.01) * weight.std() * noise, largest.name))
        damaged = file.with_name(f"damaged-{part}.onnx")
        onnx.save(model, damaged)
        files = OnnxFiles(
            **{name: getattr(exported.files, name) for name in ("encoder", "decoder", "joiner")} | {part: damaged}
        )
        verdicts = {found.what: found.holds for found in compare(exported.transducer, files, exported.layout, SPEECH)}
        assert verdicts == {name: name != part for name in ("encoder", "decoder", "joiner")}


def test_what_is_not_finite_does_not_hold() -> None:
    exact = torch.zeros(2, 3)
    wrong = np.zeros((2, 3), np.float32)
    for value, holds in ((0.9e-4, True), (1.1e-4, False), (np.nan, False), (np.inf, False)):
        wrong[1, 2] = value
        assert _summary("encoder", iter([(exact, wrong)])).holds is holds
        # A hundred times larger values may be as many times further off.
        shifted = 100 if np.isfinite(value) else 1
        assert _summary("encoder", iter([(exact + 100, (100 + shifted * wrong))])).holds is holds


def test_other_shapes_and_other_integers_do_not_hold() -> None:
    ones = torch.ones(3, dtype=torch.int64)
    assert _summary("encoder", iter([(ones, np.ones(3, np.int64))])).holds
    assert not _summary("encoder", iter([(ones, np.ones(4, np.int64))])).holds
    assert not _summary("encoder", iter([(1000 * ones, 1000 * np.ones(3, np.int64) + 1)])).holds
