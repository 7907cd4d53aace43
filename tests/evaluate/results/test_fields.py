"""Dataclasses to JSON and back, also where the JSON is of another version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from moulin.errors import OptionsError
from moulin.evaluate.results.fields import WRITTEN, from_json, to_json


@dataclass(frozen=True)
class Part:
    number: int
    text: str | None = None


@dataclass(frozen=True)
class Whole:
    parts: Sequence[Part]
    named: Mapping[str, Part] | None = None
    rows: Sequence[Sequence[float]] = ()
    always: str | None = field(default=None, metadata=WRITTEN)
    flag: bool = False


def test_what_is_written_is_read_back() -> None:
    whole = Whole((Part(1), Part(2, "two")), {"a": Part(3)}, ((1.0, 2.0), (3.0,)), "x", True)
    assert from_json(Whole, to_json(whole)) == whole


def test_nothing_is_left_out_unless_it_is_marked() -> None:
    assert to_json(Whole((Part(0),))) == {"parts": [{"number": 0}], "always": None, "flag": False}


def test_unknown_keys_are_ignored_and_missing_ones_are_defaults() -> None:
    found = {"parts": [{"number": 1, "colour": "red"}], "taste": "sweet"}
    assert from_json(Whole, found) == Whole((Part(1),))


def test_a_field_that_is_missing_is_named() -> None:
    with pytest.raises(OptionsError, match="Expected 'number' among the figures of Part, got text"):
        from_json(Whole, {"parts": [{"text": "x"}]})
