"""The options of a training as plain values."""

from __future__ import annotations

from moulin.bundle.plain_parameters import plain_parameters
from moulin.bundle.torch_file import Placeholder


def test_parameters_are_plain() -> None:
    """What is not, or has no end, is left out; the rest is of types that JSON has."""
    endless: list[object] = []
    endless.append(endless)
    doubled: object = "a"
    for _ in range(40):
        doubled = [doubled, doubled]
    content = {
        "num_heads": "4,4,8",
        "causal": True,
        "lr": 0.045,
        "nothing": None,
        "sizes": (1, 2, [3]),
        "names": {"b", "a"},
        "table": {"a": {1: (2,)}},
        "model": {},
        "optimizer": {"a": 1},
        "env_info": {"hostname": "a"},
        "endless": endless,
        "doubled": doubled,
        "object": Placeholder("a.b"),
        "within": [Placeholder("a.b")],
        "bytes": b"a",
        "long": "a" * 1_000_000,
        "huge": 10**100,
        5: 5,
    }
    assert plain_parameters(content) == {
        "num_heads": "4,4,8",
        "causal": True,
        "lr": 0.045,
        "nothing": None,
        "sizes": [1, 2, [3]],
        "names": ["a", "b"],
        "table": {"a": {"1": [2]}},
    }
    assert plain_parameters("no dictionary") == {}
