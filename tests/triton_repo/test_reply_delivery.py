"""Replies where shared memory is there, is short, or is full, with a double of Triton's response sender."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .shim_double import imported_shim

FINAL = 1


class Sender:
    """As Triton's: takes one reply, and the end of a request behind it, and does either only where there is room."""

    def __init__(self, *, reply: bool, end: bool) -> None:
        self._fits = {True: reply, False: end}
        self.calls: list[tuple[Any, int]] = []
        self._replies = 0

    def send(self, response: Any = None, flags: int = 0) -> None:
        self.calls.append((response, flags))
        if response is None and not self._replies:
            raise RuntimeError("cannot send complete final before sending a response")
        self._replies += response is not None
        if not self._fits[response is not None]:
            raise RuntimeError("no space left on device")


class Ended(Exception):
    """In place of the end of the process."""


@pytest.fixture
def delivery(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    def end(*_: object) -> None:
        raise Ended

    with imported_shim(monkeypatch, "offline") as shim:
        made = shim.ReplyDelivery("transducer_0_0", 1 << 20, tmp_path)
        monkeypatch.setattr(os, "kill", end)
        yield made


def test_a_reply_where_there_is_room(delivery: Any) -> None:
    sender = Sender(reply=True, end=True)
    delivery.send(sender, "reply")
    assert sender.calls == [("reply", FINAL)]


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("fits", [True, False])
def test_where_memory_is_short_a_request_is_ended_with_its_reply_or_without(fits: bool, delivery: Any) -> None:
    sender = Sender(reply=fits, end=True)
    delivery.send(sender, "reply")
    assert sender.calls == [("reply", 0), (None, FINAL)]


@pytest.mark.usefixtures("short")
def test_the_process_ends_where_not_even_the_end_fits(delivery: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Ended):
        delivery.send(Sender(reply=False, end=False), "reply")
    said = capfd.readouterr().err
    assert "transducer_0_0: shared memory is full, a request can be neither answered nor ended: no space left" in said


def test_the_process_ends_where_memory_was_filled_between_the_look_and_the_reply(
    delivery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([True, False])
    monkeypatch.setattr(delivery, "has_room", lambda: next(looks))
    with pytest.raises(Ended):
        delivery.send(Sender(reply=False, end=True), "reply")


def test_what_a_sender_refuses_for_another_reason_is_logged(delivery: Any, caplog: pytest.LogCaptureFixture) -> None:
    delivery.send(Sender(reply=False, end=True), "reply")
    assert "A reply could not be delivered" in caplog.text


def test_the_log_says_when_memory_is_short_and_when_it_is_there_again(
    delivery: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for free_mib in (100, 10, 9, 100, 100):
        monkeypatch.setattr(os, "statvfs", lambda _, free=free_mib: _free(free))
        assert delivery.has_room() == (free_mib == 100)
    short, there = capfd.readouterr().err.splitlines()
    assert short.startswith("transducer_0_0: shared memory is short, 10 MiB free in ")
    assert "hint: start the container with more --shm-size" in short
    assert there.startswith("transducer_0_0: shared memory is there again, 100 MiB free in ")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: _free(0))


def _free(mib: int) -> os.statvfs_result:
    return os.statvfs_result((4096, 4096, 0, 0, mib << 8, 0, 0, 0, 0, 255))
