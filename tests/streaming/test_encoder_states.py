from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from moulin.arrays import Ints
from moulin.bundle.load import load_bundle
from moulin.bundle.spec import StateSpec
from moulin.streaming.encoder_states import EncoderStates
from tests.bundles import BUNDLES, STREAMING

CAPACITY = 5


@st.composite
def specs(draw: st.DrawFn) -> list[StateSpec]:
    """States of any rank, each with its batch on any axis."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
        axis = draw(st.integers(0, len(sizes) - 1))
        sizes[axis] = 1
        dtype = draw(st.sampled_from(["float32", "int64", "float16"]))
        found.append(StateSpec(f"state{number}", dtype, tuple(sizes), axis))
    return found


SLOTS = st.lists(st.integers(0, CAPACITY - 1), unique=True, min_size=1, max_size=CAPACITY).map(
    lambda slots: np.array(slots, dtype=np.int64)
)
Naive = list[list[NDArray[Any]]]  # by slot, then by state, each of the spec's shape


def random_batch(rng: np.random.Generator, spec: StateSpec, size: int) -> NDArray[Any]:
    shape = list(spec.shape)
    shape[spec.batch_axis] = size
    return rng.integers(1, 100, shape).astype(spec.dtype)


@settings(max_examples=100, deadline=None)
@given(
    specs=specs(),
    steps=st.lists(st.tuples(st.sampled_from(["scatter", "reset"]), SLOTS), max_size=6),
    looked_at=SLOTS,
    seed=st.integers(0, 1000),
)
def test_a_loop_over_slots_does_the_same(
    specs: list[StateSpec], steps: list[tuple[str, Ints]], looked_at: Ints, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    states = EncoderStates(specs, CAPACITY)
    naive: Naive = [[np.zeros(spec.shape, spec.dtype) for spec in specs] for _ in range(CAPACITY)]
    for action, slots in steps:
        if action == "reset":
            states.reset(slots)
            for slot in slots:
                naive[slot] = [np.zeros(spec.shape, spec.dtype) for spec in specs]
        else:
            batches = [random_batch(rng, spec, len(slots)) for spec in specs]
            states.scatter(slots, batches)
            for row, slot in enumerate(slots):
                naive[slot] = [
                    np.take(batch, [row], axis=spec.batch_axis) for spec, batch in zip(specs, batches, strict=True)
                ]
    for number, (spec, got) in enumerate(zip(specs, states.gather(looked_at), strict=True)):
        wanted = np.concatenate([naive[slot][number] for slot in looked_at], axis=spec.batch_axis)
        assert got.dtype == np.dtype(spec.dtype)
        np.testing.assert_array_equal(got, wanted)


def test_what_is_gathered_is_a_copy() -> None:
    states = EncoderStates([StateSpec("state", "float32", (2, 1, 3), 1)], CAPACITY)
    slots = np.array([1, 2])
    (batch,) = states.gather(slots)
    batch += 1
    np.testing.assert_array_equal(states.gather(slots)[0], 0)


def test_nan_stays_in_its_slot() -> None:
    """For every state of every family, whatever axis its batch is on."""
    for name in STREAMING:
        streaming = load_bundle(BUNDLES / name).streaming
        assert streaming is not None
        states = EncoderStates(streaming.states, CAPACITY)
        poisoned, others = np.array([2]), np.array([0, 1, 3, 4])
        states.scatter(
            poisoned,
            [np.full(spec.shape, np.nan if spec.dtype == "float32" else -1, spec.dtype) for spec in streaming.states],
        )
        for spec, clean in zip(streaming.states, states.gather(others), strict=True):
            np.testing.assert_array_equal(clean, 0, err_msg=spec.name)
        states.reset(poisoned)
        for spec, clean in zip(streaming.states, states.gather(poisoned), strict=True):
            np.testing.assert_array_equal(clean, 0, err_msg=spec.name)
