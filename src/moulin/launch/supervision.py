"""What became of supervised processes: counts of restarts by cause, and who is down, for other processes to read.

The supervisor writes a small file in memory, whose descriptor its children inherit. No disk and no folder is needed, so
a full disk hides nothing; and counts outlive the gateway that publishes them.
"""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from moulin.launch.liveness import CAUSES, Cause, Failure

ProcessName = Literal["tritonserver", "gateway", "worker"]
PROCESS_NAMES: tuple[ProcessName, ...] = get_args(ProcessName)
ProcessState = Literal["starting", "running", "restarting"]

_SIZE = 1 << 14
_TRIES = 20


@dataclass(slots=True)
class ProcessRecord:
    """The state of one process, or of one kind of processes, and its restarts so far by cause."""

    state: ProcessState = "starting"
    restarts: dict[Cause, int] = field(default_factory=dict)
    last_cause: Cause | None = None


class SupervisionBoard:
    """The supervisor's side; its methods may be called from any thread."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("moulin-supervision")
        """The descriptor to pass on; it is not inherited otherwise."""
        self._lock = threading.Lock()
        self._records: dict[ProcessName, ProcessRecord] = {}
        os.ftruncate(self.fd, _SIZE)

    def state(self, process: ProcessName, state: ProcessState) -> None:
        """Record a change of state."""
        with self._lock:
            self._records.setdefault(process, ProcessRecord()).state = state
            self._write()

    def restart(self, process: ProcessName, failure: Failure) -> None:
        """Count a restart, which begins now."""
        with self._lock:
            record = self._records.setdefault(process, ProcessRecord())
            record.state, record.last_cause = "restarting", failure.cause
            record.restarts[failure.cause] = record.restarts.get(failure.cause, 0) + 1
            self._write()

    def close(self) -> None:
        os.close(self.fd)

    def _write(self) -> None:
        rows = {
            name: {"state": record.state, "restarts": record.restarts, "last_cause": record.last_cause}
            for name, record in self._records.items()
        }
        text = json.dumps(rows).encode()
        os.pwrite(self.fd, b"%08x%08x" % (len(text), zlib.crc32(text)) + text, 0)


def read_supervision(fd: int) -> Mapping[ProcessName, ProcessRecord]:
    """The records behind a descriptor of `SupervisionBoard`; empty where it is none, or nothing has been written."""
    for _ in range(_TRIES):
        try:
            whole = os.pread(fd, _SIZE, 0)
            length, checksum = int(whole[:8], 16), int(whole[8:16], 16)
        except (OSError, ValueError):
            return {}
        text = whole[16 : 16 + length]
        if zlib.crc32(text) == checksum:
            return _records(text)
        time.sleep(0.001)  # while it is written
    return {}


def _records(text: bytes) -> dict[ProcessName, ProcessRecord]:
    rows = json.loads(text)
    return {
        name: ProcessRecord(
            rows[name]["state"],
            {cause: rows[name]["restarts"][cause] for cause in CAUSES if cause in rows[name]["restarts"]},
            rows[name]["last_cause"],
        )
        for name in PROCESS_NAMES
        if name in rows
    }
