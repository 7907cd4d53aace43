"""Reading the queue by which tritonserver speaks to a stub, from memory laid out as python_backend's."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from moulin.triton_repo.exchange import Exchange

CONTROL, QUEUE, SIZE = 336, 512, 1000
MUTEX = {"x86_64": 40, "aarch64": 48}


def region(to: Path, machine: str, *, waiting: int = 0, free: int | None = None, queue: int = QUEUE) -> Path:
    """`waiting` messages behind 7 that were read. `IPCControlShm` has a byte for each flag, then two mutexes, then the
    places of the queues; a `MessageQueueShm` two POSIX semaphores, a mutex, its size, its messages' place, its ends."""
    memory, mutex = bytearray(4096), MUTEX[machine]
    struct.pack_into("<q", memory, CONTROL + 16 + 8 + 2 * mutex, queue)
    struct.pack_into("<II", memory, QUEUE + 16, SIZE - waiting if free is None else free, 0)
    struct.pack_into("<II", memory, QUEUE + 16 + 32, waiting, 1)
    struct.pack_into("<QQii", memory, QUEUE + 16 + 64 + mutex, SIZE, 2048, (7 + waiting) % SIZE, 7)
    to.write_bytes(memory)
    return to


@pytest.mark.parametrize("machine", MUTEX)
@pytest.mark.parametrize("waiting", [0, 1, 2, 995])
def test_a_message_before_the_reply_is_the_end(tmp_path: Path, machine: str, waiting: int) -> None:
    exchange = Exchange(region(tmp_path / "shm", machine, waiting=waiting), CONTROL, machine)
    assert exchange.is_over == (waiting > 0)


def test_what_comes_later_is_seen(tmp_path: Path) -> None:
    file = region(tmp_path / "shm", "x86_64")
    exchange = Exchange(file, CONTROL, "x86_64")
    assert not exchange.is_over
    region(file, "x86_64", waiting=1)
    assert exchange.is_over


@pytest.mark.parametrize(
    "damage",
    [{"free": 999}, {"waiting": 3, "free": 998}, {"queue": 0}, {"queue": -16}, {"queue": 1 << 60}, {"queue": 640}],
    ids=str,
)
def test_other_memory_is_no_queue(tmp_path: Path, damage: dict[str, int]) -> None:
    file = region(tmp_path / "shm", "x86_64", **damage)
    with pytest.raises(ValueError, match="queue"):
        Exchange(file, CONTROL, "x86_64")


def test_short_and_missing_memory(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(bytes(64))
    with pytest.raises(ValueError, match="queue"):
        Exchange(tmp_path / "short", CONTROL, "x86_64")
    with pytest.raises(ValueError, match="mips"):
        Exchange(region(tmp_path / "shm", "x86_64"), CONTROL, "mips")


def test_outside_a_stub_there_is_none(caplog: pytest.LogCaptureFixture) -> None:
    assert Exchange.of_this_process() is None
    assert "cannot be watched" in caplog.text


@pytest.mark.parametrize("waiting", [0, 1])
def test_the_process_ends_without_its_reply(tmp_path: Path, waiting: int) -> None:
    file = region(tmp_path / "shm", "x86_64", waiting=waiting)
    program = (
        "from moulin.triton_repo.exchange import *\n"
        f"end_if_over(Exchange(Path({str(file)!r}), {CONTROL}, 'x86_64'), 'transducer_0_0')\n"
        "print('reply')"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    if waiting:
        assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")
        assert ended.stderr.startswith("transducer_0_0: Triton has stopped waiting")
    else:
        assert (ended.returncode, ended.stdout) == (0, "reply\n")
