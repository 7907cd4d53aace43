"""Objects beside the model in checkpoints, made by the libraries that they come from."""

from __future__ import annotations

import collections
import pathlib
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moulin.bundle.torch_file import Placeholder

from .files import Call, Global, content_of, dumps, unpickled


def saved(folder: Path, value: object, **options: Any) -> Any:
    torch.save({"value": value}, folder / "file.pt", **options)
    return content_of(folder / "file.pt")["value"]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Path("zipformer/exp"), "zipformer/exp"),
        (Path("/"), "/"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (pathlib.PureWindowsPath("C:/exp/lang"), "C:\\exp\\lang"),
        (torch.__version__, str(torch.__version__)),
        (torch.float32, "torch.float32"),
        (torch.bfloat16, "torch.bfloat16"),
        (torch.device("cuda", 3), "cuda:3"),
        (torch.device("cpu"), "cpu"),
        (torch.Size([2, 3]), (2, 3)),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(int, a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.deque([1, 2], maxlen=3), [1, 2]),
        ({7}, {7}),
        (frozenset({1}), frozenset({1})),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (2 - 1j, 2 - 1j),
        (np.float64(2.5), 2.5),
        (np.float32(0.5), 0.5),
        (np.float16(0.25), 0.25),
        (np.int64(-3), -3),
        (np.uint8(200), 200),
        (np.bool_(True), True),
        (np.str_("▁ab"), "▁ab"),
        (np.bytes_(b"ab"), b"ab"),
        (np.array(3.5, ">f8")[()], 3.5),
    ],
    ids=repr,
)
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_values_that_are_known(tmp_path: Path, value: object, plain: object, protocol: int) -> None:
    found = saved(tmp_path, value, pickle_protocol=protocol)
    assert found == plain
    assert type(found) is type(plain)


# By Python 3.13.0, whose pathlib is a package: pickle.dumps(PosixPath("a/b"), 2), and so on.
PATHS_OF_3_13 = [
    (b"\x80\x02cpathlib._local\nPosixPath\nq\x00X\x03\x00\x00\x00a/bq\x01\x85q\x02Rq\x03.", "a/b"),
    (b"\x80\x02cpathlib._local\nPurePosixPath\nq\x00X\x04\x00\x00\x00/a/bq\x01\x85q\x02Rq\x03.", "/a/b"),
    (b"\x80\x02cpathlib._local\nPureWindowsPath\nq\x00X\x04\x00\x00\x00c:/xq\x01\x85q\x02Rq\x03.", "c:\\x"),
]
# A class that only Windows has, as Python 3.11 and 3.13 pickle it there.
PATHS_OF_WINDOWS = [
    (b"\x80\x02cpathlib\nWindowsPath\nq\x00X\x03\x00\x00\x00c:\\q\x01X\x01\x00\x00\x00xq\x02\x86q\x03Rq\x04.", "c:\\x"),
    (b"\x80\x02cpathlib._local\nWindowsPath\nq\x00X\x04\x00\x00\x00c:/xq\x01\x85q\x02Rq\x03.", "c:\\x"),
]


@pytest.mark.parametrize(("pickled", "path"), PATHS_OF_3_13 + PATHS_OF_WINDOWS)
def test_paths_of_other_pythons(tmp_path: Path, pickled: bytes, path: str) -> None:
    assert unpickled(pickled, tmp_path) == path


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_scalars_of_numpy_1_and_2(tmp_path: Path, module: str) -> None:
    pickled = re.sub(rb"numpy\.(_?)core\.multiarray", module.encode(), pickle.dumps(np.float64(1.5), 2))
    assert module.encode() in pickled
    assert unpickled(pickled, tmp_path) == 1.5


def test_dictionaries_of_python_2(tmp_path: Path) -> None:
    """Made by Python 2.7: pickle.dumps(OrderedDict([("a", 1)]), 2)."""
    pickled = b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01]q\x02(U\x01aq\x03K\x01ea\x85q\x04Rq\x05."
    assert unpickled(pickled, tmp_path) == {"a": 1}


FOREIGN: dict[str, Callable[[], object]] = {
    "array": lambda: np.ones(3),
    "array of objects": lambda: np.array({}, dtype=object),
    "time": lambda: np.datetime64("2026-11-28"),
    "random": lambda: np.random.default_rng(0),
    "class": lambda: torch.nn.Linear,
    "meta": lambda: torch.ones(2, device="meta"),
    "sparse": lambda: torch.eye(2).to_sparse(),
    "conjugated": lambda: torch.ones(2, dtype=torch.complex64).conj(),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "module": lambda: torch.nn.Linear(2, 2),
    "optimizer": lambda: torch.optim.SGD([torch.ones(1)], lr=0.1),
    "slice": lambda: slice(1, 2),
    "range": lambda: range(3),
    "function": lambda: print,
    "type": lambda: int,
}


@pytest.mark.parametrize("value", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.filterwarnings("ignore")  # some of these are old-fashioned
def test_what_is_not_rebuilt(tmp_path: Path, value: Callable[[], object]) -> None:
    assert isinstance(saved(tmp_path, value()), Placeholder)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("collections.OrderedDict", (1,)),
        ("collections.OrderedDict", ([1],)),
        ("collections.OrderedDict", ([[1, 2, 3]],)),
        ("collections.defaultdict", (1, 2, 3)),
        ("builtins.set", (5,)),
        ("builtins.bytearray", (10**12,)),
        ("_codecs.encode", ("a", "rot13")),
        ("_codecs.encode", ("a", "zip")),
        ("pathlib.PosixPath", (1,)),
        ("numpy.dtype", ("O",)),
        ("numpy.dtype", ("f8,f8",)),
        ("numpy.core.multiarray.scalar", ("f8", b"12345678")),
        ("numpy.core.multiarray.scalar", (Call("numpy.dtype", "f8"), b"1234567")),
        ("numpy.core.multiarray.scalar", (Call("numpy.dtype", "U999999"), b"")),
        ("numpy.core.multiarray.scalar", (Call("numpy.dtype", "f3"), b"abc")),
        ("torch._utils._rebuild_tensor_v2", ()),
        ("torch._utils._rebuild_tensor_v2", (None, 0, (1,), (1,), False, {})),
        ("torch._utils._rebuild_parameter", (5, True, {})),
        ("torch._tensor._rebuild_from_type_v2", (Global("torch.Size"), None, ((),), None)),
        ("torch._tensor._rebuild_from_type_v2", (None, None, None, None)),
        ("copyreg._reconstructor", (Global("os.system"), Global("builtins.str"), "ls")),
        ("torch.Size", ("ab",)),
    ],
)
def test_arguments_that_make_no_sense(tmp_path: Path, name: str, arguments: tuple[object, ...]) -> None:
    assert isinstance(unpickled(dumps(Call(name, *arguments)), tmp_path), Placeholder)


@pytest.mark.filterwarnings("ignore")  # lhotse advises on how to shuffle
def test_a_sampler_of_lhotse(tmp_path: Path) -> None:
    """As Icefall's save_checkpoint keeps it in checkpoint-N.pt."""
    pytest.importorskip("lhotse", reason="needs lhotse, which is not installed")
    from lhotse import CutSet
    from lhotse.dataset import DynamicBucketingSampler
    from lhotse.testing.dummies import DummyManifest

    cuts = DummyManifest(CutSet, begin_id=0, end_id=100)
    sampler = DynamicBucketingSampler(
        cuts, max_duration=10.0, num_buckets=2, shuffle=True, num_cuts_for_bins_estimate=50
    )
    iterator = iter(sampler)
    next(iterator)
    state = sampler.state_dict()
    found = saved(tmp_path, state)
    assert set(found) == set(state)
    assert found["epoch"] == 0
    assert found["max_duration"] == state["max_duration"]
