"""Copies of many runs at once, against a loop over them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.audio.runs import copy_runs, places_in, starts_of
from moulin.audio.waveform import as_floats


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 3, 127, 128, 129, 640, 5120]), st.integers(0, 300)), max_size=12),
    st.booleans(),
    st.integers(0, 5),
)
def test_runs_are_copied_as_one_by_one(runs: list[tuple[int, int]], int16: bool, seed: int) -> None:
    """Gaps between the runs in the target keep what they had, and runs may come in any order."""
    rng = np.random.default_rng(seed)
    lengths = np.array([length for length, _ in runs], np.int64)
    source = rng.integers(-32768, 32768, int(lengths.sum())).astype(np.int16)
    samples = source if int16 else as_floats(source)
    gaps = np.array([gap for _, gap in runs], np.int64)
    targets = starts_of(lengths + gaps)
    order = rng.permutation(len(runs))
    target = np.full(int((lengths + gaps).sum()) + 1, 99, np.float32)
    wanted = target.copy()
    sources = starts_of(lengths)
    for run in order.tolist():
        piece = as_floats(samples[sources[run] : sources[run] + lengths[run]])
        wanted[targets[run] : targets[run] + lengths[run]] = piece
    copy_runs(samples, target, sources[order], targets[order], lengths[order])
    np.testing.assert_array_equal(target, wanted)


@pytest.mark.parametrize("lengths", [[], [0], [3], [0, 2, 0, 1]])
def test_places(lengths: list[int]) -> None:
    runs, places = places_in(np.array(lengths, np.int64))
    assert list(zip(runs.tolist(), places.tolist(), strict=True)) == [
        (run, place) for run, length in enumerate(lengths) for place in range(length)
    ]
