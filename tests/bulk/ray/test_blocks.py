"""Tables on their way to Ray and back, without Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from moulin.bulk.pyarrow_here import pa
from moulin.bulk.ray.arriving import arriving
from moulin.bulk.ray.blocks import blocks, not_in
from moulin.bulk.schema import RECORDINGS


def recordings(paths: list[str], window_sec: float | None = None) -> object:
    rows = [
        {"id": str(number), "path": path, "offset_sec": window_sec and number * window_sec, "window_sec": window_sec}
        for number, path in enumerate(paths)
    ]
    return pa.Table.from_pylist(rows, schema=RECORDINGS)


@pytest.mark.parametrize(("count", "decoders", "tables"), [(14, 4, 14), (40, 4, 14), (1000, 2, 16), (1, 8, 1)])
def test_small_manifests_are_spread(count: int, decoders: int, tables: int) -> None:
    made = blocks(recordings([f"{number}.wav" for number in range(count)]), decoders)
    assert len(made) == tables
    ids = [id for table in made for id in table.column("id").to_pylist()]
    assert ids == [str(number) for number in range(count)]


def test_windows_of_a_recording_stay_together() -> None:
    made = blocks(recordings(["a.wav"] * 9 + ["b.wav"], 1.0), 8)
    assert [table.num_rows for table in made] == [9, 1]


def test_what_comes_twice_is_taken_once() -> None:
    done: set[str] = set()
    first, second = (pa.table({"id": ids}) for ids in (["a", "b"], ["b", "c", "c"]))
    assert not_in(done, first).column("id").to_pylist() == ["a", "b"]
    assert not_in(done, second).column("id").to_pylist() == ["c"]
    assert not_in(done, first).num_rows == 0


def test_items_arrive_in_order_and_then_the_failure() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ValueError("no more")

    came: list[int] = []
    with pytest.raises(ValueError, match="no more"):
        came.extend(item for item in arriving(items()) if item is not None)
    assert came == [0, 1, 2, 3, 4]


def test_who_waits_is_woken_and_may_leave() -> None:
    def never() -> Iterator[int]:
        import threading

        threading.Event().wait(5)
        yield 1

    assert next(arriving(never())) is None
