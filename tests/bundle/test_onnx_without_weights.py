"""Graphs parsed without their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from moulin.bundle.onnx_weights.model_file import WeightFile
from moulin.bundle.onnx_without_weights import parse_without_weights
from tests.bundles import BUNDLES

FILES = [
    BUNDLES / "lstm-streaming" / "encoder-epoch-1-avg-1.onnx",  # large constants
    BUNDLES / "zipformer2-offline" / "encoder-epoch-1-avg-1.onnx",  # branches
    BUNDLES / "zipformer2-offline" / "decoder-epoch-1-avg-1.int8.onnx",
]


def tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    constants = [attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t")]
    return [*model.graph.initializer, *constants]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_all_but_the_weights_is_as_in_the_file(file: Path) -> None:
    whole, ours = onnx.load(file), parse_without_weights(file)
    left_out = 0
    for tensor, other in zip(tensors(ours), tensors(whole), strict=True):
        if len(other.raw_data) > 1024:
            assert not tensor.raw_data
            tensor.raw_data = other.raw_data
            left_out += len(other.raw_data)
    assert left_out > file.stat().st_size / 4
    assert ours == whole


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_views_of_the_file_have_the_values(file: Path) -> None:
    whole, ours = onnx.load(file), WeightFile(file)
    for tensor, other in zip(tensors(ours.model), tensors(whole), strict=True):
        assert tensor.name == other.name
        assert np.array_equal(ours.array(tensor), numpy_helper.to_array(other))
