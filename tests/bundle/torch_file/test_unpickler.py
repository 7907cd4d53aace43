"""Nothing in a pickle is executed, and no pickle takes more than its length in time and memory."""

from __future__ import annotations

import os
import pickle
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from moulin.bundle.torch_file import Placeholder, open_torch_file
from moulin.errors import BundleError

from .files import Call, Global, content_of, dumps, placeholder, unpickled, zip_file


class Canary:
    """Touches a file when it is unpickled as pickles are meant to be."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.file}",)


def test_the_canary_would_sing(tmp_path: Path) -> None:
    torch.save({"a": Canary(tmp_path / "sung")}, tmp_path / "file.pt")
    torch.load(tmp_path / "file.pt", weights_only=False)
    assert (tmp_path / "sung").is_file()


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_is_called(tmp_path: Path, legacy: bool) -> None:
    content = {"model": {"w": torch.ones(2)}, "sampler": Canary(tmp_path / "sung"), "epoch": 3}
    torch.save(content, tmp_path / "file.pt", _use_new_zipfile_serialization=not legacy)
    found = content_of(tmp_path / "file.pt")
    assert placeholder(found["sampler"]) == f"{os.system.__module__}.system"
    assert found["epoch"] == 3
    assert not (tmp_path / "sung").exists()


TOUCH = "touch CANARY"
HOSTILE = {
    "reduce": b"cos\nsystem\n(V%s\ntR.",
    "inst": b"(V%s\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nV%s\no.",
    "newobj": b"cos\nsystem\n(V%s\nt\x81.",
    "newobj_ex": b"cos\nsystem\n(V%s\nt}\x92.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93(V%s\ntR.",
    "getattr": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(Vos\ntRVsystem\ntR(V%s\ntR.",
    "eval": b'cbuiltins\neval\n(V__import__("os").system("%s")\ntR.',
    "exec": b'c__builtin__\nexec\n(Vimport os; os.system("%s")\ntR.',
    "setstate": b"cos\nsystem\n)R}V__setstate__\ncos\nsystem\nsb(V%s\ntb.",
    "through OrderedDict": b"ccollections\nOrderedDict\n(cos\nsystem\n(V%s\ntRtR.",
    "through defaultdict": b"ccollections\ndefaultdict\n(cos\nsystem\ntRV%s\nN\x73.",
    "through a tensor": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\ncos\nsystem\n(V%s\ntNtR.",
    "through copyreg": b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nstr\nV%s\ntR.",
    "through newobj of copyreg": b"ccopyreg\n__newobj__\n(cos\nsystem\nV%s\ntR.",
    "a dotted name": b"\x80\x04\x8c\x08builtins\x8c\x16__import__.__call__.os\x93(V%s\ntR.",
    "a module that is a path": b"c../../os\nsystem\n(V%s\ntR.",
    "extension": b"\x82\x01(V%s\ntR.",
}


@pytest.mark.parametrize("pickled", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles_run_nothing(tmp_path: Path, pickled: bytes) -> None:
    """Each is a call in another way; what comes is inert."""
    command = f"touch {tmp_path}/sung".encode()
    before = set(sys.modules) | {"encodings.cp437"}  # zipfile asks for it
    unpickled(pickled % command, tmp_path)
    assert not (tmp_path / "sung").exists()
    assert set(sys.modules) <= before


def test_a_name_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    sys.path.insert(0, str(tmp_path))
    try:
        assert placeholder(unpickled(b"cevil\nthing\n.", tmp_path)) == "evil.thing"
    finally:
        sys.path.remove(str(tmp_path))
    assert "evil" not in sys.modules


def test_placeholders_take_whatever_pickles_do(tmp_path: Path) -> None:
    """Items, appended values, states with slots, keywords, persistent ids of another kind, buffers."""
    foreign = Call("foreign.Thing", 1, state=({"a": 1}, {"slot": 2}))
    pickled = dumps({"a": foreign, "b": Global("foreign.function")})
    assert placeholder(unpickled(pickled, tmp_path)["a"]) == "foreign.Thing"
    for operations in (
        b"cforeign\nThing\n)R(K\x01K\x02u.",  # SETITEMS
        b"cforeign\nThing\n)R(K\x01K\x02e.",  # APPENDS
        b"cforeign\nThing\n)RK\x01a.",  # APPEND
        b"cforeign\nThing\n)RK\x01K\x02s.",  # SETITEM
        b"\x80\x04cforeign\nThing\n)R(K\x01\x90.",  # ADDITEMS
        b"cforeign\nThing\n)\x81}}\x86b.",  # BUILD with slots
        b"\x80\x04cforeign\nThing\n)}\x8c\x01aK\x01s\x92.",  # NEWOBJ_EX with keywords
        b"(VThing\nK\x01tQ.",  # BINPERSID
        b"PThing\n.",  # PERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x05\x97\x98.",  # READONLY_BUFFER
        b"\x83\x01\x00.",  # EXT2
        b"cforeign\nThing\n)R)R)Rb.",  # what came of a call, called
    ):
        if operations.endswith(b"Rb."):
            with pytest.raises(BundleError, match="damaged"):
                unpickled(operations, tmp_path)
        else:
            assert isinstance(unpickled(operations, tmp_path), Placeholder), operations


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    value = {
        "numbers": [0, 1, -1, 255, 65536, 2**31, -(2**40), 2**100, 1.5, float("inf"), True, False, None],
        "texts": ["", "a", "▁ü", "\\n\n", "x" * 300],
        "bytes": b"\x00\xff",
        "nested": ({"a": (1, (2,))}, [[]], (), {1, 2}, frozenset({3}), {(1, "a"): 2, None: 3, 1.5: 4}),
        "complex": 1 + 2j,
    }
    value["same"] = value["numbers"]
    assert unpickled(pickle.dumps(value, protocol), tmp_path) == value


def test_a_value_within_itself(tmp_path: Path) -> None:
    value: list[Any] = []
    value.append(value)
    found = unpickled(pickle.dumps(value, 2), tmp_path)
    assert found[0] is found


def seconds(pickled: bytes, folder: Path) -> float:
    begin = time.monotonic()
    with suppress(BundleError):
        unpickled(pickled, folder)
    return time.monotonic() - begin


DOUBLED = b"".join(b"(h\x00h\x00t\x85q\x00" for _ in range(60))
BOMBS = {
    "memo at two thousand million": b"]r\xff\xff\xff\x7f.",
    "a length of 4 EiB": b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b".",
    "a text of 16 GiB": b"\x80\x04\x8d" + (2**34).to_bytes(8, "little") + b"a.",
    "bytes of 16 GiB": b"\x80\x05\x96" + (2**34).to_bytes(8, "little") + b"a.",
    "tuples of tuples as a key": b"}K\x01q\x00" + DOUBLED + b"K\x01s.",
    "tuples of tuples in a set": b"\x80\x04\x8f(K\x01q\x00" + DOUBLED + b"\x90.",
    "one list copied often": b"c__builtin__\nlist\nq\x01]("
    + b"K\x01" * 50_000
    + b"e\x85q\x02"
    + b"h\x01h\x02R" * 50_000,
    "a deep tuple as a key": b"})" + b"\x85" * 500_000 + b"K\x01s.",
    "deep lists": b"(" + b"]" * 200_000 + b"a" * 199_999 + b"t.",
    "deep marks": b"(" * 500_000 + b".",
    "a number of many digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "a huge key often": b"}\x8b\x40\x42\x0f\x00" + b"\x7f" * 1_000_000 + b"q\x00" + b"0" + b"h\x00Ns" * 100_000 + b".",
}


@pytest.mark.parametrize("pickled", BOMBS.values(), ids=BOMBS)
def test_bombs_do_not_go_off(tmp_path: Path, pickled: bytes) -> None:
    assert seconds(pickled, tmp_path) < 30  # a second alone; the machine may be busy


def test_more_operations_than_any_checkpoint_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moulin.bundle.torch_file.unpickler.MOST_OPERATIONS", 1000)
    with pytest.raises(BundleError, match="more than 1,000 operations"):
        unpickled(b"N0" * 600 + b"N.", tmp_path)


@pytest.mark.parametrize(
    "pickled",
    [b"", b"N", b".", b"\xff.", b"0.", b"K\x01K\x02.", b"h\x07.", b"t.", b"R.", b"}K\x01.", b"(NNNu.", b"}(Nu.",
     b"\x80\x04NN\x93.", b"X\xff\xff\xff\x7fa.", b"S'a.", b"cos.", b"(i.", b"]\x85b."],
)  # fmt: skip
def test_damaged_pickles(tmp_path: Path, pickled: bytes) -> None:
    with pytest.raises(BundleError, match=r"file\.pt cannot be read as a checkpoint: its pickle is damaged") as caught:
        unpickled(pickled, tmp_path)
    assert caught.value.hint


def test_errors_of_our_own_are_not_swallowed(tmp_path: Path) -> None:
    file = zip_file(tmp_path / "file.pt", b"N.")
    with pytest.raises(ZeroDivisionError), open_torch_file(file):
        raise ZeroDivisionError
