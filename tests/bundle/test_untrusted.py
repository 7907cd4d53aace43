"""A model's files as somebody wrote them who wants to harm: one BundleError, soon, and in little memory."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from moulin.bundle.load import load_bundle
from moulin.bundle.load_model import load_model
from moulin.bundle.onnx_graph import read_onnx_graph
from moulin.bundle.sentencepiece_model import read_pieces
from moulin.bundle.tokens import MOST_TOKENS, read_tokens
from moulin.errors import BundleError

from .conftest import CopyBundle
from .damage import edit_onnx, part, set_metadata

LONG = "x" * 10_000_000


def refuses(call: Callable[[], object], match: str | None = None) -> None:
    """`call` raises one BundleError of one line, however long what it is about."""
    with pytest.raises(BundleError, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 2000


# ---------------------------------------------------------------------------------------------------------------- ONNX


@pytest.mark.parametrize("elem_type", [99, -1, 2**31 - 1, onnx.TensorProto.STRING, onnx.TensorProto.FLOAT8E4M3FN])
def test_unknown_element_types(copy_bundle: CopyBundle, elem_type: int) -> None:
    folder = copy_bundle("conformer-offline")

    def change(model: Any) -> None:
        model.graph.input[0].type.tensor_type.elem_type = elem_type

    edit_onnx(part(folder, "encoder"), change)
    refuses(lambda: load_bundle(folder), "to be a tensor of numbers")


def test_an_element_type_that_numpy_lacks(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("lstm-streaming")

    def change(model: Any) -> None:
        model.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16

    edit_onnx(part(folder, "encoder"), change)
    refuses(lambda: load_bundle(folder), "to be a tensor of numbers")


@pytest.mark.parametrize(
    "node",
    [
        onnx.NodeProto(op_type="Constant"),
        onnx.NodeProto(op_type="Constant", output=["w"]),
        onnx.NodeProto(op_type="Constant", attribute=[onnx.AttributeProto(t=onnx.TensorProto(dims=[3, 4]))]),
        onnx.NodeProto(op_type="Slice"),
        onnx.NodeProto(),
    ],
)
def test_nodes_without_what_they_need(copy_bundle: CopyBundle, node: Any) -> None:
    """They are no error until a runtime loads the file, which says so itself."""
    folder = copy_bundle("conformer-offline")
    edit_onnx(part(folder, "encoder"), lambda model: model.graph.node.append(node))
    load_bundle(folder)


@pytest.mark.parametrize("name", [LONG, "x\ny", "\x1b[2J"])
def test_names_that_nobody_can_read(copy_bundle: CopyBundle, name: str) -> None:
    folder = copy_bundle("conformer-offline")

    def change(model: Any) -> None:
        model.graph.input[0].name = name

    edit_onnx(part(folder, "encoder"), change)
    refuses(lambda: load_bundle(folder), "inputs and outputs with names")


@pytest.mark.parametrize("sizes", [[1, 2, -3], [1, 2, 2**62], [2] * 1000])
def test_shapes_that_no_model_has(copy_bundle: CopyBundle, sizes: list[int]) -> None:
    folder = copy_bundle("conformer-offline")

    def change(model: Any) -> None:
        shape = model.graph.input[0].type.tensor_type.shape
        shape.ClearField("dim")
        for size in sizes:
            shape.dim.add(dim_value=size)

    edit_onnx(part(folder, "encoder"), change)
    refuses(lambda: load_bundle(folder))


def test_states_that_no_memory_holds(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("lstm-streaming")

    def change(model: Any) -> None:
        for value in model.graph.input[1:]:
            value.type.tensor_type.shape.dim[2].dim_value = 2**40

    edit_onnx(part(folder, "encoder"), change)
    refuses(lambda: load_bundle(folder), "bytes of states")


@pytest.mark.parametrize("role", ["decoder"])
@pytest.mark.parametrize("key", ["context_size", "vocab_size"])
@pytest.mark.parametrize("value", [LONG, "9" * 5000, "1_0", "٣", "-1", "9" * 18, "0", "\n", ""])
def test_metadata_of_any_kind(copy_bundle: CopyBundle, role: str, key: str, value: str) -> None:
    folder = copy_bundle("conformer-offline")
    set_metadata(part(folder, role), **{key: value})
    refuses(lambda: load_bundle(folder))


@pytest.mark.parametrize("key", ["T", "decode_chunk_len", "model_type"])
@pytest.mark.parametrize("value", [LONG, "9" * 18, "-1", "\n"])
def test_metadata_of_streams(copy_bundle: CopyBundle, key: str, value: str) -> None:
    folder = copy_bundle("lstm-streaming")
    set_metadata(part(folder, "encoder"), **{key: value})
    refuses(lambda: load_bundle(folder))


def test_a_graph_in_a_graph_without_end(tmp_path: Path) -> None:
    """500 levels; protobuf itself reads a hundred."""
    content = b""
    for _ in range(500):
        for tag in (0x32, 0x2A, 0x0A):  # AttributeProto.g, NodeProto.attribute, GraphProto.node
            content = bytes([tag]) + _varint(len(content)) + content
    file = tmp_path / "encoder.onnx"
    file.write_bytes(b"\x3a" + _varint(len(content)) + content)
    refuses(lambda: read_onnx_graph(file))


@pytest.mark.parametrize("level", ["nodes", "attributes", "metadata"])
def test_empty_messages_by_the_million(tmp_path: Path, level: str) -> None:
    """4 MB, which would be hundreds in memory."""
    empty = {"nodes": b"\x0a\x00", "attributes": b"\x2a\x00", "metadata": b"\x72\x00"}[level] * 2_200_000
    if level == "attributes":
        empty = b"\x0a" + _varint(len(empty)) + empty
    file = tmp_path / "encoder.onnx"
    file.write_bytes(empty if level == "metadata" else b"\x3a" + _varint(len(empty)) + empty)
    refuses_in(128, f"from moulin.bundle.onnx_graph import read_onnx_graph as read; read(Path({str(file)!r}))")


def test_a_pipe_in_place_of_a_graph(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-offline")
    encoder = part(folder, "encoder")
    encoder.unlink()
    os.mkfifo(encoder)
    refuses(lambda: load_bundle(folder), "expected a file, got a pipe")


# ---------------------------------------------------------------------------------------------------------- vocabulary


@pytest.mark.parametrize(
    "line", ["x {}", "#{0} {0}", "", " ", "x -{}", "{0} 99999999{0}"], ids=["plain", "#", "empty", " ", "-", "beyond"]
)
def test_tokens_without_end(tmp_path: Path, line: str) -> None:
    """A million lines; ten took 2.4 GB."""
    file = tmp_path / "tokens.txt"
    with file.open("w") as tokens:
        for first in range(0, 1_000_000, 100_000):
            tokens.write("".join(line.format(n) + "\n" for n in range(first, first + 100_000)))
    refuses_in(96, f"from moulin.bundle.tokens import read_tokens as read; read(Path({str(file)!r}), 500)")


@pytest.mark.parametrize(
    "content",
    [LONG, f"{LONG} 0", f"x {'9' * 1_000_000}", "x 1_0", "\ud800 0", "x 0\0", "\n" * 300_000, "a\n" * 10],
    ids=lambda content: repr(content[:8]),
)
def test_lines_of_any_kind(tmp_path: Path, content: str) -> None:
    file = tmp_path / "tokens.txt"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    refuses(lambda: read_tokens(file, 500))


@pytest.mark.parametrize("vocab_size", [0, -1, MOST_TOKENS + 1, 2**62])
def test_vocabularies_that_no_model_has(tmp_path: Path, vocab_size: int) -> None:
    refuses(lambda: read_tokens(tmp_path / "tokens.txt", vocab_size), "Expected a vocabulary of")


@pytest.mark.parametrize("name", ["tokens.txt", "bpe.model"])
def test_a_vocabulary_that_is_no_file(tmp_path: Path, name: str) -> None:
    refuses(lambda: read_tokens(tmp_path / name, 5), "There is no")
    os.mkfifo(tmp_path / name)
    refuses(lambda: read_tokens(tmp_path / name, 5), "a pipe")


def test_pieces_by_the_million(tmp_path: Path) -> None:
    file = tmp_path / "bpe.model"
    file.write_bytes(b"\x0a\x00" * 2_200_000)
    refuses_in(128, f"from moulin.bundle.sentencepiece_model import read_pieces as read; read(Path({str(file)!r}))")


@pytest.mark.parametrize("content", [b"\x0a\x02\x0a\x00", b"\x0a\x04\x0a\x02\xff\xfe", b"\x0b", b"\xff" * 20])
def test_pieces_of_any_kind(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bpe.model"
    file.write_bytes(content)
    refuses(lambda: read_pieces(file))


# --------------------------------------------------------------------------------------------------------- checkpoints


def zipped(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "epoch-1.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("epoch-1/data.pkl", content)
        archive.writestr("epoch-1/version", "3")
    return file


PICKLES = {
    "marks": b"((((.",
    "nothing": b"",
    "depth": b"(" * 100_000 + b"t" * 100_000 + b".",
    "itself": b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.",
    "a long string": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "a long number": b"L" + b"9" * 100_000 + b"L\n.",
    "a memo far away": b"\x80\x02}r\xff\xff\xff\xff.",
    "half a surrogate": b"\x80\x02}X\x05\x00\x00\x00modelV\\ud800\ns.",
}


@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize("name", PICKLES)
def test_pickles(tmp_path: Path, form: str, name: str) -> None:
    if form == "zip":
        file = zipped(tmp_path, PICKLES[name])
    else:
        file = tmp_path / "epoch-1.pt"
        head: list[object] = [0x1950A86A20F9469CFC6C, 1001, {}]
        file.write_bytes(b"".join(pickle.dumps(value, 2) for value in head) + PICKLES[name])
    (tmp_path / "tokens.txt").write_text("a 0\n")
    refuses(lambda: load_model(file))


def test_a_checkpoint_with_records_without_end(tmp_path: Path) -> None:
    """A directory of 400,000 records, each of which zipfile would make an object of half a kilobyte for."""
    entry = b"PK\1\2" + bytes(42)
    directory = entry * 400_000
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(directory), 4, 0)
    file = tmp_path / "epoch-1.pt"
    file.write_bytes(b"PK\3\4" + directory + end)
    (tmp_path / "tokens.txt").write_text("a 0\n")
    refuses(lambda: load_model(file), "more records than a checkpoint has")


# --------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    "path",
    ["x" * 5000, "/".join("x" * 1500), "a\0b", "\ud800", "x" * 5000 + ".pt", "a\0b.pt", "a/" * 1500 + "x.onnx"],
    ids=lambda path: repr(path[:8]) + path[-5:],
)
def test_paths_of_any_kind(path: str) -> None:
    refuses(lambda: load_model(Path(path)))


def refuses_in(megabytes: int, code: str) -> None:
    """`code`, in a process of its own with so much memory, raises a BundleError."""
    script = (
        "import resource, sys\nfrom pathlib import Path\nimport onnx, google.protobuf, numpy\n"
        "from moulin.errors import BundleError\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, 2 * (used + {megabytes} * 2**20,))\n"
        f"try:\n    {code}\nexcept BundleError as error:\n    print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.count("\n") == 1
    assert "MemoryError" not in ran.stdout


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
