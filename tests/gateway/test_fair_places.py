"""Places shared by callers, in virtual turns: what is waited for is decided before anybody sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.gateway.fair_places import FairPlaces


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_one_caller_may_have_all() -> None:
    places = FairPlaces(16)
    assert [places.take("a") for _ in range(17)] == [True] * 16 + [False]
    assert places.taken == 16


def test_a_few_are_kept_for_who_has_none() -> None:
    """Of 16, two more: one each for two others."""
    places = FairPlaces(16)
    for _ in range(16):
        assert places.take("a")
    assert [places.take(caller) for caller in ("b", "b", "a", "c", "d")] == [True, False, False, True, False]
    places.release("b")
    assert not places.take("a")
    assert places.take("d")


def test_who_has_fewest_is_next_and_of_equals_the_first() -> None:
    async def work() -> None:
        places, order = FairPlaces(4), list[str]()
        for caller in "aaab":
            assert places.take(caller)

        async def waits(caller: str, name: str) -> None:
            await places.wait(caller)
            order.append(name)

        waiting = [asyncio.create_task(waits(*who)) for who in (("a", "a4"), ("b", "b2"), ("c", "c1"), ("d", "d1"))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["c1"]  # has the place that is kept
        for freed in "aaab":
            places.release(freed)
            await asyncio.sleep(0)
        assert order == ["c1", "d1", "a4", "b2"]  # when the third of a is free, a has none and b has one
        await asyncio.gather(*waiting)

    run(work())


def test_a_place_is_freed_when_who_waited_for_it_has_just_gone() -> None:
    async def work() -> None:
        places = FairPlaces(1)
        assert places.take("a")
        gone, there = (asyncio.create_task(places.wait("a")) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        places.release("a")  # before the cancelled task has run
        await there
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert places.taken == 1
        places.release("a")
        assert places.taken == 0

    run(work())


def test_a_hundred_of_one_caller_do_not_delay_another() -> None:
    async def work() -> None:
        places = FairPlaces(8)
        crowd = [asyncio.create_task(places.wait("crowd")) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.wait_for(places.wait("someone"), 60)
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)

    run(work())


def test_whoever_leaves_the_queue_takes_nothing_along() -> None:
    async def work() -> None:
        places = FairPlaces(1)
        assert places.take("a")
        assert places.take("kept")
        first, second = (asyncio.create_task(places.wait(caller)) for caller in ("b", "c"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        places.release("a")
        await asyncio.wait_for(second, 60)
        third = asyncio.create_task(places.wait("d"))
        await asyncio.sleep(0)
        places.release("c")  # the place is the third's,
        third.cancel()  # who leaves before it hears of it
        with pytest.raises(asyncio.CancelledError):
            await third
        places.release("kept")
        assert places.taken == 0

    run(work())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60), st.integers(1, 9))
def test_the_number_is_never_exceeded(orders: list[tuple[str, bool]], number: int) -> None:
    places, held = FairPlaces(number), []
    for caller, takes in orders:
        if takes:
            if places.take(caller):
                held.append(caller)
        elif caller in held:
            held.remove(caller)
            places.release(caller)
        assert places.taken == len(held) <= number + -(-number // 8)


def test_places_become_more_and_fewer() -> None:
    async def run() -> list[int]:
        places, counts = FairPlaces(2), list[int]()
        waiting = [asyncio.create_task(places.wait("a")) for _ in range(8)]
        await asyncio.sleep(0)
        for number in (4, 1):
            places.resize(number)
            await asyncio.sleep(0)
            counts.append(places.taken)
        for _ in range(4):
            places.release("a")
            await asyncio.sleep(0)
        counts.append(places.taken)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return counts

    assert asyncio.run(run()) == [4, 4, 1]
