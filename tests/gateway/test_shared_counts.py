"""Limits that several processes share: judged by processes of their own."""

from __future__ import annotations

import multiprocessing as mp
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from moulin.gateway.api_error import ApiError
from moulin.gateway.fair_places import FairPlaces
from moulin.gateway.limits import Limits
from moulin.gateway.settings import gateway_settings
from moulin.gateway.shared_counts import SharedCounts, SharedFile

_SPAWN = mp.get_context("spawn")


def _worker(folder: str, places: int, orders: Connection) -> None:
    given = FairPlaces(places, SharedCounts(SharedFile(Path(folder) / "limits"), "streams"))
    while (order := orders.recv()) is not None:
        what, caller = order
        if what == "take":
            orders.send(given.take(caller))
        else:
            given.release(caller)
            orders.send(None)


class Worker:
    """A process with its own view of the shared places."""

    def __init__(self, folder: Path, places: int) -> None:
        self._orders, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_worker, args=(str(folder), places, theirs), daemon=True)
        self.process.start()

    def __call__(self, what: str, caller: str) -> bool | None:
        self._orders.send((what, caller))
        answer: bool | None = self._orders.recv()
        return answer


def test_a_limit_is_one_for_all_workers(tmp_path: Path) -> None:
    first, second = Worker(tmp_path, 8), Worker(tmp_path, 8)
    assert [worker("take", "a") for worker in (first, second) * 4] == [True] * 8
    assert [worker("take", "a") for worker in (first, second)] == [False, False]
    assert second("take", "b")  # of those that are kept for callers with few, whoever holds the others
    assert not first("take", "b")
    first("release", "a")
    second("release", "a")
    assert [worker("take", "a") for worker in (second, first)] == [True, False]


def test_what_a_killed_worker_had_is_free(tmp_path: Path) -> None:
    first, second = Worker(tmp_path, 4), Worker(tmp_path, 4)
    assert [first("take", "a") for _ in range(3)] == [True] * 3
    assert [second("take", "a") for _ in range(2)] == [True, False]
    first.process.kill()
    first.process.join()
    assert [second("take", "a") for _ in range(4)] == [True, True, True, False]
    third = Worker(tmp_path, 4)
    assert not third("take", "a")
    second("release", "a")
    assert third("take", "a")


def _asks(folder: str, times: int) -> int:
    limits = Limits(gateway_settings(shared_folder=Path(folder), max_requests_per_minute=60))
    counted = 0
    for _ in range(times):
        try:
            limits.count("a")
        except ApiError:
            continue
        counted += 1
    return counted


def test_requests_a_minute_are_counted_by_all_workers(tmp_path: Path) -> None:
    with _SPAWN.Pool(3) as pool:
        counted = pool.starmap(_asks, [(str(tmp_path), 50)] * 3, chunksize=1)
    # A minute's allowance, and what is refilled within the seconds that this takes.
    assert 60 <= sum(counted) <= 75


def test_no_more_workers_than_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moulin.gateway.shared_counts.ROWS", 2)
    workers = [Worker(tmp_path, 2) for _ in range(2)]  # with all rows: the number is that of this process
    assert all(worker("take", "a") for worker in workers)
    with pytest.raises(OSError, match="more than 2 workers"):
        SharedFile(tmp_path / "limits")
