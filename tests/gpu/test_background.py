"""Work beside serving: it ends by itself, with its owner, and when it is told to."""

from __future__ import annotations

import gc
import threading

import pytest

from moulin.gpu.background import in_background


class Owner:
    def __init__(self, left: int) -> None:
        self.left, self.done, self.begun = left, threading.Event(), threading.Event()

    def work(self) -> bool:
        self.begun.set()
        self.left -= 1
        if not self.left:
            self.done.set()
        return self.left > 0


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "test-work"]


def start(owner: Owner) -> None:
    owner.end = in_background(owner, Owner.work, pause_sec=0.001, name="test-work")  # type: ignore[attr-defined]


def join() -> None:
    for thread in threads():
        thread.join(60)
        assert not thread.is_alive()


def test_until_there_is_nothing_left() -> None:
    owner = Owner(3)
    start(owner)
    assert owner.done.wait(60)
    join()
    assert owner.left == 0


def test_until_nobody_holds_the_owner() -> None:
    owner = Owner(-1)
    begun = owner.begun
    start(owner)
    assert begun.wait(60)
    del owner
    gc.collect()
    join()


def test_until_it_is_told() -> None:
    owner = Owner(-1)
    start(owner)
    owner.end()  # type: ignore[attr-defined]
    assert not threads()


def test_a_failure_ends_it_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Owner) -> bool:
        raise RuntimeError("CUDA out of memory")

    owner = Owner(1)
    in_background(owner, fail, pause_sec=0.001, name="test-work")
    join()
    assert caplog.messages == ["test-work: CUDA out of memory"]
