"""Tensors equal to those of torch.load, and BundleErrors for all else."""

from __future__ import annotations

import os
import struct
import tarfile
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from moulin.bundle.torch_file import StoredTensor, open_torch_file
from moulin.bundle.torch_file.stored_tensor import ITEM_SIZES
from moulin.errors import BundleError

from .files import Call, Global, Storage, dumps, placeholder, read, refused, stored, zip_file


def same(found: Tensor, expected: Tensor) -> None:
    assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride())
    if found.numel():
        size = found.element_size()
        raw = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        views = [tensor.contiguous().reshape(-1) for tensor in (found, expected)]
        if found.is_complex():
            views, size = [torch.view_as_real(view) for view in views], size // 2
        assert torch.equal(*(view.view(raw[size]) for view in views))


DTYPES = [name for name in ITEM_SIZES if name not in ("complex32", "float8_e8m0fnu") and hasattr(torch, name)]


@st.composite
def tensors(draw: st.DrawFn, names: list[str]) -> Tensor:
    """Of any type and strides, and some within larger storages."""
    dtype: torch.dtype = getattr(torch, draw(st.sampled_from(names)))
    size = draw(st.lists(st.integers(0, 4), max_size=4))
    item = torch.empty(0, dtype=dtype).element_size()
    seed = torch.Generator().manual_seed(draw(st.integers(0, 100)))
    if dtype == torch.bool:
        whole = torch.randint(0, 2, (2, *size), generator=seed).bool()
    else:
        raw = torch.randint(0, 256, (2, *size, item), dtype=torch.uint8, generator=seed)
        whole = raw.view(dtype).squeeze(-1)
    tensor = whole[draw(st.integers(0, 1))]
    tensor = tensor.permute(draw(st.permutations(range(tensor.ndim))))
    if tensor.ndim and tensor.shape[-1] > 1 and draw(st.booleans()):
        tensor = tensor[..., :: draw(st.integers(1, 3))]
    if tensor.ndim and draw(st.booleans()):
        tensor = tensor.unsqueeze(0).expand(2, *tensor.shape)
    return tensor


@pytest.mark.parametrize("legacy", [False, True])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_as_torch_load(tmp_path: Path, legacy: bool, data: st.DataObject) -> None:
    names = [name for name in DTYPES if not legacy or not name.startswith(("uint1", "uint3", "uint6", "float8"))]
    state = data.draw(st.dictionaries(st.text(max_size=5), tensors(names), min_size=1, max_size=4))
    first = next(iter(state.values()))
    state |= {"shared": first, "part of it": first[..., :1] if first.ndim else first}
    file = tmp_path / "file.pt"
    torch.save(OrderedDict(state), file, _use_new_zipfile_serialization=not legacy)
    expected, found = torch.load(file, weights_only=True), read(file)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        same(found[name], tensor)


@pytest.mark.parametrize("protocol", range(1, 6))  # storages cannot be named in protocol 0
@pytest.mark.parametrize("legacy", [False, True])
def test_parameters_of_every_protocol(tmp_path: Path, protocol: int, legacy: bool) -> None:
    """A parameter, one with an attribute and hooks, and a tensor with an attribute."""
    plain, marked = torch.nn.Parameter(torch.randn(3)), torch.nn.Parameter(torch.randn(3), requires_grad=False)
    marked.lr_scale = 0.5  # type: ignore[attr-defined]
    tensor = torch.randn(2)
    tensor.note = "a"  # type: ignore[attr-defined]
    content = {"a": plain, "b": marked, "c": tensor}
    options: dict[str, Any] = {"_use_new_zipfile_serialization": not legacy}
    torch.save(content, tmp_path / "file.pt", pickle_protocol=protocol, **options)
    found = read(tmp_path / "file.pt")
    for name, value in content.items():
        same(found[name], value.detach())
        assert not found[name].requires_grad


def test_a_module_within_a_legacy_file(tmp_path: Path) -> None:
    """Its class is a persistent object of another kind."""
    torch.save(
        {"a": torch.nn.Linear(2, 2), "b": torch.ones(1)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False
    )
    with open_torch_file(tmp_path / "a.pt") as opened:
        placeholder(opened.content["a"])
        assert opened.read(opened.content["b"], "b").tolist() == [1.0]


@pytest.mark.parametrize("dtype", ["float32", "int16", "complex64", "bfloat16", "float64"])
def test_the_other_byte_order(tmp_path: Path, dtype: str) -> None:
    values = torch.arange(6).to(getattr(torch, dtype))
    torch.save({"a": values}, tmp_path / "a.pt")
    width = ITEM_SIZES[dtype] // (2 if values.is_complex() else 1)
    with zipfile.ZipFile(tmp_path / "a.pt") as archive, zipfile.ZipFile(tmp_path / "big.pt", "w") as big:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("/data/0"):
                content = b"".join(content[i : i + width][::-1] for i in range(0, len(content), width))
            big.writestr(name, b"big" if name.endswith("byteorder") else content)
    same(read(tmp_path / "big.pt")["a"], values)


# ------------------------------------------------------------------------------------------------------ other files


@pytest.mark.parametrize(
    ("content", "match", "hint"),
    [
        (b"", "is no checkpoint: it is empty", False),
        (b"not a checkpoint", "is no checkpoint: torch.save did not write it", False),
        (b"<blk> 0\n<unk> 1\n", "is no checkpoint: torch.save did not write it", False),
        (bytes(4096), "is no checkpoint: torch.save did not write it", False),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 7\n",
            "is no checkpoint: it is a pointer of Git LFS",
            True,
        ),
        (b"<!DOCTYPE html><html></html>", "is no checkpoint: it is a page", True),
        (b"\x80\x02}q\x00.", "it is a pickle, but not one that torch.save wrote", True),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02K\x05.", "of a version of PyTorch's format", False),
        (b"PK\x03\x04" + bytes(100), "the directory at its end is missing or damaged", True),
        (b"\x00" * 257 + b"ustar" + bytes(400), "is a tar archive", True),
    ],
    ids=["empty", "text", "tokens", "zeros", "git-lfs", "page", "pickle", "version", "zip cut off", "tar"],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, match: str, hint: bool) -> None:
    (tmp_path / "epoch-1.pt").write_bytes(content)
    refused(tmp_path / "epoch-1.pt", match, hint=hint)


def test_a_tar_archive_and_other_places(tmp_path: Path) -> None:
    (tmp_path / "pickle").write_bytes(b"N.")
    with tarfile.open(tmp_path / "old.pt", "w") as tar:
        tar.add(tmp_path / "pickle", "pickle")
    refused(tmp_path / "old.pt", "is a tar archive")
    with pytest.raises(BundleError, match="There is no"):
        read(tmp_path / "nothing.pt")
    with pytest.raises(BundleError, match="cannot be read: Is a directory"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(BundleError, match="it is a pipe"):
        read(tmp_path / "pipe.pt")


@pytest.mark.parametrize("scripted", [True, False])
@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated
def test_programs_of_torchscript(tmp_path: Path, scripted: bool) -> None:
    module = torch.nn.Linear(2, 2)
    program = torch.jit.script(module) if scripted else torch.jit.trace(module, torch.ones(1, 2))  # type: ignore[no-untyped-call]
    program.save(str(tmp_path / "cpu_jit.pt"))
    refused(tmp_path / "cpu_jit.pt", "is a TorchScript program")


def tensor_file(file: Path, *arguments: object, numel: object = 4, data: bytes = bytes(16), key: str = "0") -> Path:
    """A file of one tensor 'a': what `_rebuild_tensor_v2` is called with for it, after its storage."""
    storage = Storage("storage", Global("torch.FloatStorage"), key, "cpu", numel)
    pickled = dumps({"a": Call("torch._utils._rebuild_tensor_v2", storage, *arguments, False, {})})
    return zip_file(file, pickled, {"data/0": data, "byteorder": b"little"})


def test_by_hand(tmp_path: Path) -> None:
    data = struct.pack("<4f", 0, 1, 2, 3)
    assert read(tensor_file(tmp_path / "a.pt", 1, (2,), (2,), data=data))["a"].tolist() == [1.0, 3.0]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0, (5,), (1,)), "goes beyond its storage, byte 20 of 16"),
        ((4, (1,), (1,)), "goes beyond its storage"),
        ((0, (2, 2), (3, 1)), "goes beyond its storage"),
        ((2**60, (1,), (1,)), "goes beyond its storage"),
        ((0, (2**40,), (2**20,)), "more than 8 times the elements"),
        ((0, (2**40, 2**20), (0, 0)), "more than 8 times the elements"),
    ],
)
def test_tensors_beyond_their_storage(tmp_path: Path, arguments: tuple[object, ...], match: str) -> None:
    refused(tensor_file(tmp_path / "a.pt", *arguments), match, hint=False)


@pytest.mark.parametrize(
    "arguments",
    [
        (-1, (1,), (1,)),
        (0, (-1,), (1,)),
        (0, (1,), (-1,)),
        (0, (1, 1), (1,)),
        (0, (2**70,), (1,)),
        (0, (1.5,), (1,)),
        (0, (True,), (1,)),
        (0, "1", (1,)),
        (0, None, None),
        (None, (1,), (1,)),
        (0, (1,) * 65, (1,) * 65),
    ],
)
def test_shapes_that_are_none(tmp_path: Path, arguments: tuple[object, ...]) -> None:
    with open_torch_file(tensor_file(tmp_path / "a.pt", *arguments)) as opened:
        assert placeholder(opened.content["a"]) == "torch._utils._rebuild_tensor_v2"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"numel": 5}, "has a storage of 16 bytes, expected 20"),
        ({"numel": 2**60}, "has a storage of 16 bytes"),
        ({"key": "1"}, "has no record 'archive/data/1'"),
        ({"key": "../data.pkl"}, "has no record"),
    ],
)
def test_storages_that_are_not_there(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    refused(tensor_file(tmp_path / "a.pt", 0, (4,), (1,), **options), match)


def test_many_tensors_of_one_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file cannot stand for any amount of memory."""
    monkeypatch.setattr("moulin.bundle.torch_file.file._SMALL", 2**20)
    torch.save({str(n): torch.ones(1).expand(2**16) for n in range(8)}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "more than 8 times the elements", hint=False)


def test_a_column_of_a_large_storage_keeps_no_more_than_itself(tmp_path: Path) -> None:
    torch.save({"a": torch.randn(1000, 1000)[:, 3]}, tmp_path / "a.pt")
    assert read(tmp_path / "a.pt")["a"].untyped_storage().nbytes() == 4000


def test_damaged_values(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[content.index(struct.pack("<f", 1) * 100) + 50] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    refused(tmp_path / "a.pt", "does not have the checksum that was saved with it")


# ---------------------------------------------------------------------------------------------------- damaged files


def small(legacy: bool, folder: Path) -> bytes:
    state = OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.tensor([1, 2], dtype=torch.bfloat16))
    content = {"model": state, "exp_dir": Path("exp"), "optimizer": {"state": {0: torch.ones(3)}}, "lr": 0.5}
    torch.save(content, folder / "small.pt", _use_new_zipfile_serialization=not legacy)
    return (folder / "small.pt").read_bytes()


def try_to_read(content: bytes, folder: Path) -> None:
    """Whatever `content` is: a result, or a BundleError."""
    (folder / "damaged.pt").write_bytes(content)
    with suppress(BundleError), open_torch_file(folder / "damaged.pt") as opened:
        found = opened.content
        model = found.get("model") if isinstance(found, dict) else None
        for name, value in model.items() if isinstance(model, dict) else ():
            if isinstance(value, StoredTensor):
                opened.read(stored(value), str(name))


@pytest.mark.parametrize("legacy", [False, True])
def test_files_that_are_cut_off(tmp_path: Path, legacy: bool) -> None:
    content = small(legacy, tmp_path)
    for length in range(0, len(content), 7):
        try_to_read(content[:length], tmp_path)


@pytest.mark.parametrize("legacy", [False, True])
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_files_with_other_bytes(tmp_path: Path, legacy: bool, data: st.DataObject) -> None:
    content = bytearray(small(legacy, tmp_path))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try_to_read(bytes(content), tmp_path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pickled=st.binary(max_size=60))
def test_pickles_of_random_bytes(tmp_path: Path, pickled: bytes) -> None:
    zip_file(tmp_path / "random.pt", b"\x80\x02" + pickled)
    try_to_read((tmp_path / "random.pt").read_bytes(), tmp_path)
