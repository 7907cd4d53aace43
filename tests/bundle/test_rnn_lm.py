"""Files of RNN language models that are not in Icefall's form."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from moulin.bundle.rnn_lm import RnnStates, is_rnn_lm, read_rnn_lm
from moulin.errors import BundleError

INT64, FLOAT = TensorProto.INT64, TensorProto.FLOAT
SIZES = {"num_layers": "2", "hidden_size": "5", "sos_id": "1", "vocab_size": "7"}


def write(file: Path, metadata: dict[str, str] | None = None, layers: int | str = 2) -> Path:
    """A graph with the interface of one with states."""
    inputs = [
        helper.make_tensor_value_info("x", INT64, ["N", "L"]),
        *(helper.make_tensor_value_info(name, FLOAT, [layers, "N", 5]) for name in ("h0", "c0")),
    ]
    outputs = [
        helper.make_tensor_value_info("log_softmax", FLOAT, ["N", 7]),
        *(helper.make_tensor_value_info(name, FLOAT, [layers, "N", 5]) for name in ("next_h0", "next_c0")),
    ]
    nodes = [helper.make_node("Identity", [name], [f"next_{name}"]) for name in ("h0", "c0")]
    nodes.append(helper.make_node("Cast", ["x"], ["log_softmax"], to=FLOAT))
    model = helper.make_model(helper.make_graph(nodes, "lm", inputs, outputs))
    for key, value in (SIZES if metadata is None else metadata).items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, file)
    return file


def test_facts(tmp_path: Path) -> None:
    """Sizes are also told by the graph, as long as both agree."""
    for metadata in (SIZES, {"sos_id": "1"}):
        found = read_rnn_lm(write(tmp_path / "lm.onnx", metadata))
        assert (found.states, found.vocab_size) == (RnnStates(2, 5, 1), 7)


@pytest.mark.parametrize(
    ("metadata", "layers", "match"),
    [
        ({}, 2, "Expected num_layers, hidden_size and sos_id in the metadata of .*, got none"),
        ({"sos_id": "1"}, "layers", "got 'sos_id'"),
        ({**SIZES, "hidden_size": "6"}, 2, "Expected the hidden_size 6 of the metadata in 'h0' of .*, got 5"),
        ({**SIZES, "vocab_size": "500"}, 2, "Expected the vocab_size 500 .* got 7"),
        ({**SIZES, "sos_id": "-1"}, 2, "Expected sizes of a network .* sos_id -1"),
        ({**SIZES, "sos_id": "one"}, 2, "Expected a number as 'sos_id'"),
        ({**SIZES, "num_layers": str(10**9)}, "layers", "Expected sizes of a network"),
    ],
)
def test_metadata(metadata: dict[str, str], layers: int | str, match: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=match):
        read_rnn_lm(write(tmp_path / "lm.onnx", metadata, layers))


def test_another_interface(tmp_path: Path) -> None:
    """An older export with x, y, h0, c0, say."""
    model = onnx.load(write(tmp_path / "lm.onnx"))
    model.graph.input.insert(1, helper.make_tensor_value_info("y", INT64, ["N", "L"]))
    onnx.save(model, tmp_path / "lm.onnx")
    with pytest.raises(BundleError, match=r"to take tokens and two states .* got x int64 .* y int64"):
        read_rnn_lm(tmp_path / "lm.onnx")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="There is no language model"):
        read_rnn_lm(tmp_path / "none.onnx")
    (tmp_path / "lm.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(BundleError, match=r"is not a complete ONNX file|holds no complete ONNX graph"):
        read_rnn_lm(tmp_path / "lm.onnx")


def test_files_are_told_apart_by_name_or_content(tmp_path: Path) -> None:
    write(tmp_path / "lm.bin")
    (tmp_path / "lm.arpa").write_text("\\data\\\n")
    told = {name: is_rnn_lm(tmp_path / name) for name in ("lm.bin", "lm.arpa", "none", "none.onnx")}
    assert told == {"lm.bin": True, "lm.arpa": False, "none": False, "none.onnx": True}
    assert not is_rnn_lm(None)
