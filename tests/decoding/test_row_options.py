"""`RowOptions`: decoding options as arrays."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from moulin.decoding.options import DecodingOptions
from moulin.decoding.row_options import RowOptions

EACH = [
    DecodingOptions(),
    DecodingOptions("modified_beam_search", beam=7, temperature=4.0, blank_penalty=1.5),
    DecodingOptions(beam=9, blank_penalty=-2.0),
]


def test_each_row_says_what_its_options_say() -> None:
    rows = RowOptions.of(EACH)
    assert len(rows) == 3
    assert rows.beams.tolist() == [0, 7, 0]
    assert rows.blank_penalties.tolist() == [0.0, 1.5, -2.0]
    assert rows.sharpness.tolist() == [1.0, 0.25, 1.0]
    assert rows.places == 7
    assert RowOptions.of(EACH[:1]).places == RowOptions.of([]).places == 1


def test_rows_that_are_taken_are_copies() -> None:
    rows = RowOptions.of(EACH)
    taken = rows.take(np.array([2, 1, 1]))
    for field in fields(RowOptions):
        assert getattr(taken, field.name).tolist() == getattr(rows, field.name)[[2, 1, 1]].tolist()
        assert getattr(taken, field.name).dtype == getattr(rows, field.name).dtype
    taken.set(0, EACH[1])
    assert rows.beams.tolist() == [0, 7, 0]


def test_the_defaults_are_those_of_the_options() -> None:
    one, other = RowOptions.defaults(2), RowOptions.of([DecodingOptions()] * 2)
    assert all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(RowOptions))
