"""Whether Triton still waits for the reply to what a model computes. Runs inside Triton's stub process.

tritonserver hands a batch to the process of a python model, waits for one reply, and then hands over the next. It stops
waiting where the process gives no sign of life for a second: it was stopped, the machine or the container was paused,
the clock was set, or other work had all the cores. Its requests get an error; but the process goes on, and its reply,
which comes late, is taken for the reply to the next batch: other requests get the words, and memory that both processes
share is freed twice. So a process whose reply is not waited for any more must end without it.

The only sign is in the queue by which tritonserver speaks to the process: the message that ends an exchange, which
otherwise comes after the reply. This module looks for it. The places in shared memory are those of python_backend's
`IPCControlShm` and `MessageQueueShm`, the same in tritonserver 2.51 and 2.73; so is the fault
(`StubLauncher::ReceiveMessageFromStub`).
"""

from __future__ import annotations

import logging
import mmap
import os
import platform
import signal
import struct
import sys
from pathlib import Path
from typing import Self

from moulin.launch.shared_memory import SHM_DIR, STUB_REGION

logger = logging.getLogger(__name__)

_CONTROL = 7
"""The argument of a stub that says where `IPCControlShm` is in its shared memory."""
_OWNER = 16
"""Bytes before every object, which count its users."""
_MUTEX = {"x86_64": 40, "aarch64": 48}
_SEMAPHORE = 32
_FLAGS = 8
_HANDLE = struct.Struct("<q")
_COUNT = struct.Struct("<I")
_RING = struct.Struct("<QQii")
"""Size, place of the messages, head and tail."""


class Exchange:
    """The queue in which tritonserver's messages to this process lie."""

    def __init__(self, region: Path, control: int, machine: str = platform.machine()) -> None:
        """`region` is the shared memory, `control` the place in it that the stub was told.

        Raises ValueError where it is not as known.
        """
        mutex = _MUTEX.get(machine)
        if mutex is None:
            raise ValueError(f"not known on {machine}")
        with region.open("rb") as file:
            self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            (queue,) = _HANDLE.unpack_from(self._memory, control + _OWNER + _FLAGS + 2 * mutex)
            self._empty = queue + _OWNER
            self._full = self._empty + _SEMAPHORE
            self._ring = self._full + _SEMAPHORE + mutex
            self._expect_queue()
        except struct.error as error:
            raise ValueError("no queue at the place that the process was told") from error

    @classmethod
    def of_this_process(cls) -> Self | None:
        """The queue of this stub; None, and a line in the log, where it cannot be read."""
        try:
            arguments = Path("/proc/self/cmdline").read_bytes().decode().split("\0")
            return cls(SHM_DIR / arguments[STUB_REGION].lstrip("/"), int(arguments[_CONTROL]))
        except (OSError, ValueError, IndexError) as error:
            logger.warning(
                "After a pause of this process Triton may confuse replies: its queue cannot be watched (%s)", error
            )
            return None

    @property
    def is_over(self) -> bool:
        """Whether a message has come before the reply to the last one: Triton does not wait for it any more."""
        (waiting,) = _COUNT.unpack_from(self._memory, self._full)
        return bool(waiting)

    def _expect_queue(self) -> None:
        (free,), (waiting,) = (_COUNT.unpack_from(self._memory, place) for place in (self._empty, self._full))
        size, _, head, tail = _RING.unpack_from(self._memory, self._ring)
        if not (0 < size <= 1 << 20 and 0 <= head < size and 0 <= tail < size):
            raise ValueError("no queue at the place that the process was told")
        if free + waiting != size or (head - tail) % size != waiting:
            raise ValueError("a queue that counts in another way")


def end_if_over(exchange: Exchange | None, model: str) -> None:
    """To be called last before `execute` returns: end this process where its reply would go to other requests."""
    if exchange is not None and exchange.is_over:
        print(
            f"{model}: Triton has stopped waiting for a reply, after a second in which this process could not run; the "
            "process ends, so that no other request gets it",
            file=sys.stderr,
            flush=True,
        )
        os.kill(os.getpid(), signal.SIGKILL)
