from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moulin.engine.batching import micro_batches

LENGTHS = st.lists(st.integers(0, 3000), max_size=40)


@given(LENGTHS, st.integers(1, 5000), st.integers(1, 16))
def test_micro_batches(lengths: list[int], max_batch_frames: int, num_workers: int) -> None:
    num_frames = dict(enumerate(lengths))
    batches = micro_batches(num_frames, max_batch_frames=max_batch_frames, num_workers=num_workers)
    positions = [position for batch in batches for position in batch]
    assert sorted(positions) == list(num_frames)
    in_order = [num_frames[position] for position in positions]
    assert in_order == sorted(lengths, reverse=True)
    share = -(-sum(lengths) // num_workers)
    for batch in batches:
        assert batch
        padded = len(batch) * num_frames[batch[0]]
        assert len(batch) == 1 or padded <= min(max_batch_frames, share)


@given(st.sets(st.integers(0, 1000), max_size=20))
def test_positions_need_not_be_all(positions: set[int]) -> None:
    """Empty utterances are left out by the caller."""
    batches = micro_batches(dict.fromkeys(positions, 100), max_batch_frames=1000, num_workers=1)
    assert {position for batch in batches for position in batch} == positions
    assert all(len(batch) <= 10 for batch in batches)


def test_no_more_batches_than_needed() -> None:
    assert micro_batches({0: 5, 1: 100, 2: 100, 3: 6}, max_batch_frames=200, num_workers=1) == [[1, 2], [3, 0]]


def test_every_worker_gets_its_share() -> None:
    batches = micro_batches(dict.fromkeys(range(8), 100), max_batch_frames=10_000, num_workers=4)
    assert [len(batch) for batch in batches] == [2, 2, 2, 2]


def test_nothing() -> None:
    assert micro_batches({}, max_batch_frames=100, num_workers=2) == []
