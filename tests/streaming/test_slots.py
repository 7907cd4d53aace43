from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.errors import MoulinError, StreamError, StreamsFull
from moulin.streaming.slots import SlotPool


def test_a_full_pool_says_its_limit() -> None:
    slots = SlotPool(3)
    assert sorted(slots.acquire() for _ in range(3)) == [0, 1, 2]
    with pytest.raises(StreamsFull, match="All 3 streams are in use") as caught:
        slots.acquire()
    assert isinstance(caught.value, StreamError)
    assert isinstance(caught.value, MoulinError)
    assert "--max-streams" in str(caught.value.hint)
    assert slots.num_taken == 3
    slots.release(1)
    assert slots.acquire() == 1


def test_few_streams_use_few_slots() -> None:
    """The slot freed last is given out first: memory of the others is never touched."""
    slots = SlotPool(1000)
    seen = set()
    for _ in range(100):
        pair = [slots.acquire(), slots.acquire()]
        seen.update(pair)
        for slot in pair:
            slots.release(slot)
    assert seen == {0, 1}


@given(capacity=st.integers(1, 6), choices=st.lists(st.integers(-1, 5), max_size=60))
def test_no_slot_is_given_twice(capacity: int, choices: list[int]) -> None:
    """-1 takes a slot, another number gives back one of those taken."""
    slots = SlotPool(capacity)
    taken: list[int] = []
    for choice in choices:
        if choice >= 0 and taken:
            slots.release(taken.pop(choice % len(taken)))
        elif len(taken) == capacity:
            with pytest.raises(StreamsFull, match=f"All {capacity} streams"):
                slots.acquire()
        else:
            taken.append(slots.acquire())
        assert slots.num_taken == len(taken)
        assert len(set(taken)) == len(taken)
        assert set(taken) <= set(range(capacity))


def test_from_several_threads() -> None:
    """No slot is held by two threads at once, and none is lost."""
    slots = SlotPool(8)
    holders = [0] * 8

    def hold_and_give_back(_: int) -> None:
        for _ in range(500):
            slot = slots.acquire()
            holders[slot] += 1
            assert holders[slot] == 1
            holders[slot] -= 1
            slots.release(slot)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(hold_and_give_back, range(8)))
    assert slots.num_taken == 0
    assert sorted(slots.acquire() for _ in range(8)) == list(range(8))
