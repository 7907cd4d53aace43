"""What is counted for limits: in one process, or by all workers of a gateway together.

Workers share a file that each of them maps into its memory. A worker has a row in it, which it alone writes: how many
places it has given of each limit, in all and by caller. It holds a lock on the row as long as it lives, so that what a
killed worker had given counts no longer. Callers are told apart by a hash: two that share a number share a count too.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np

ROWS = 256
"""The most workers that can share a file."""
LIMITS = ("requests", "streams")
"""What is counted in it."""
_MOST_TIMES = 10_000
_CALLERS = 1023
_TOTAL = _CALLERS
"""The column of all callers together."""


class Counts(Protocol):
    """How many places callers have."""

    @property
    def taken(self) -> int:
        """Those of all callers together."""

    def held(self, caller: str) -> int:
        """Those of one."""

    def add(self, caller: str, number: int) -> None:
        """Count `number` more, or fewer where it is negative."""

    def alone(self) -> AbstractContextManager[None]:
        """A context in which nobody else counts, between a look and what follows from it."""

    def forget_the_dead(self) -> None:
        """Count no longer what processes have that ended without giving it back."""


class Times(Protocol):
    """A time for each caller, 0 at first."""

    def of(self, caller: str) -> float: ...

    def put(self, caller: str, time: float) -> None: ...

    def alone(self) -> AbstractContextManager[None]:
        """A context in which nobody else puts a time."""


class OwnCounts:
    """Counts of one process."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self.taken = 0

    def held(self, caller: str) -> int:
        return self._held[caller]

    def add(self, caller: str, number: int) -> None:
        self.taken += number
        self._held[caller] += number
        if not self._held[caller]:
            del self._held[caller]

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()

    def forget_the_dead(self) -> None:
        pass


class OwnTimes:
    """Times of one process, of the callers that came last: a caller can have many addresses."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        """In the order of last use."""

    def of(self, caller: str) -> float:
        return self._times.get(caller, 0.0)

    def put(self, caller: str, time: float) -> None:
        self._times.pop(caller, None)
        self._times[caller] = time
        if len(self._times) > _MOST_TIMES:
            del self._times[next(iter(self._times))]

    def alone(self) -> AbstractContextManager[None]:
        return nullcontext()


class SharedFile:
    """The file of all workers, and the row of this one. `times` has a time for each caller, which all may write."""

    def __init__(self, file: Path) -> None:
        """Take a row of `file`, which is made where it is missing. Raises OSError."""
        self._file = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        self._salt = file.parent.name.encode()[:64]
        shape = (ROWS, len(LIMITS), _CALLERS + 1)
        size = 4 * int(np.prod(shape))
        os.posix_fallocate(self._file, 0, size + 8 * _CALLERS)  # never shrinks what others have mapped
        memory = np.frombuffer(mmap.mmap(self._file, 0), np.uint8)
        self.counts = memory[:size].view(np.int32).reshape(shape)
        self.times = memory[size:].view(np.float64)
        self.row = self._take_row()

    def number_of(self, caller: str) -> int:
        """The column of a caller."""
        digest = hashlib.blake2b(caller.encode("utf-8", "surrogatepass"), digest_size=8, key=self._salt).digest()
        return int.from_bytes(digest, "little") % _CALLERS

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A context that one worker at a time is in."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def forget_the_dead(self) -> None:
        """Count nothing for rows whose workers have gone."""
        for row in np.flatnonzero(self.counts[:, :, _TOTAL].any(axis=1)):
            if row != self.row and self._lock(int(row)):
                self.counts[row] = 0
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, int(row))

    def _take_row(self) -> int:
        for row in range(ROWS):
            if self._lock(row):
                self.counts[row] = 0
                return row
        raise OSError(f"more than {ROWS} workers")

    def _lock(self, row: int) -> bool:
        """Whether the lock on a row could be taken: its owner, if it had one, has ended."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)
        except OSError:
            return False
        return True


class SharedCounts:
    """One limit's counts in a file of several workers."""

    def __init__(self, shared: SharedFile, limit: str) -> None:
        self._shared, self._limit = shared, LIMITS.index(limit)

    @property
    def taken(self) -> int:
        return self._sum(_TOTAL)

    def held(self, caller: str) -> int:
        return self._sum(self._shared.number_of(caller))

    def add(self, caller: str, number: int) -> None:
        own = self._shared.counts[self._shared.row, self._limit]
        own[self._shared.number_of(caller)] += number
        own[_TOTAL] += number

    def alone(self) -> AbstractContextManager[None]:
        return self._shared.alone()

    def forget_the_dead(self) -> None:
        self._shared.forget_the_dead()

    def _sum(self, column: int) -> int:
        return int(self._shared.counts[:, self._limit, column].sum())


class SharedTimes:
    """The times in a file of several workers."""

    def __init__(self, shared: SharedFile) -> None:
        self._shared = shared

    def of(self, caller: str) -> float:
        return float(self._shared.times[self._shared.number_of(caller)])

    def put(self, caller: str, time: float) -> None:
        self._shared.times[self._shared.number_of(caller)] = time

    def alone(self) -> AbstractContextManager[None]:
        return self._shared.alone()
