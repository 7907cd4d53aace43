"""A process that decodes: tables of recordings in, tables of audio out.

It works on one task after another. A table goes out when it is full and at the end of a task, and the process waits
before the next one until it is told to go on: so that no more audio is in memory than the engines can use.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path

# Read when numpy is first imported: there is a process for each core.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

from moulin.audio.selection import Selection
from moulin.bulk.decode import decode_rows, opened
from moulin.bulk.local.channel import Channel, taken_object, taken_table
from moulin.bulk.local.child import run_child
from moulin.bulk.local.settings import DecodingSettings
from moulin.bulk.schema import DecodedRows, recording_rows
from moulin.isolated_decoding.cpu_budget import ChargedRecording, CpuBudget
from moulin.isolated_decoding.messages import DecodingLimits
from moulin.long_audio.recording_pieces import Blocks

LIMITS = DecodingLimits(cpu_sec=1e9, first_cpu_sec=60.0, cpu_sec_a_sec=1.0)
"""CPU time of a recording: a minute to begin, and then not slower than real time. A decoder that needs more is lost in
a damaged file."""

_SAID_SEC = 10.0
"""The time after which the process says that it goes on from recording to recording."""

_MEMORY_BYTES = 8 << 30
"""Memory beside the libraries: a recording of a day takes a third of it."""


def serve(channel: Channel) -> None:
    """Decode until the executor closes its end."""
    message = channel.receive()
    if message is None:
        return
    settings: DecodingSettings = taken_object(message)
    _limit_memory()
    while (message := channel.receive()) is not None:
        rows = list(recording_rows(taken_table(message)))
        decoded = DecodedRows()
        said = time.monotonic()
        decoding = decode_rows(
            rows, decoded, max_utterance_sec=settings.max_utterance_sec, cuts=settings.cut == "decoders", open=_opened
        )
        for done, _ in enumerate(decoding, start=1):
            if settings.is_full(len(decoded), decoded.seconds) and done < len(rows):
                if not _sent(channel, decoded, is_last=False):
                    return
                decoded.clear()
            if (now := time.monotonic()) - said > _SAID_SEC:
                channel.send({"alive": True})
                said = now
        if not _sent(channel, decoded, is_last=True):
            return


def _sent(channel: Channel, decoded: DecodedRows, *, is_last: bool) -> bool:
    """Send a table and, but for the last one, wait; returns whether to go on."""
    channel.send_table({"rows": len(decoded), "seconds": decoded.seconds, "last": is_last}, decoded.table())
    return is_last or channel.receive() is not None


def _opened(path: str, selection: Selection, name: str) -> Sequence[tuple[Selection, Blocks]]:
    budget = CpuBudget(LIMITS)
    return [(single, ChargedRecording(recording, budget)) for single, recording in opened(path, selection, name)]


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MEMORY_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


if __name__ == "__main__":
    run_child(serve)
