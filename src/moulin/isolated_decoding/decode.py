"""What a process does that the server has forked: recordings, each from a descriptor to pieces on a socket."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from moulin.arrays import Floats
from moulin.audio.live_input import LiveInput
from moulin.audio.recording import opened_recordings
from moulin.audio.selection import Selection
from moulin.audio.waveform import SAMPLE_RATE
from moulin.errors import AudioError, MoulinError
from moulin.isolated_decoding.cpu_budget import ChargedRecording, CpuBudget
from moulin.isolated_decoding.messages import ERRORS, MAX_ORDER_BYTES, UNEXPECTED, Order, packed
from moulin.isolated_decoding.peaks import PeaksOf
from moulin.long_audio.cutter import Piece
from moulin.long_audio.recording_blocks import RecordingBlocks
from moulin.long_audio.recording_pieces import Blocks, OpenRecordings, RecordingPieces

logger = logging.getLogger(__name__)

_NICE = 10
"""Below everything else on the machine: many recordings at once delay each other, and not live streams."""

_LONG_SEC, NICE_TO_SHORT = 0.25, 19
"""CPU time after which a recording gives way to shorter ones, such as a clip. A process cannot take that back and is
for no other recording."""


def work(orders: socket.socket) -> None:
    """Take one recording after the other, until the server closes its end."""
    os.nice(_NICE)
    signal.signal(signal.SIGPROF, lambda *_: os.setpriority(os.PRIO_PROCESS, 0, NICE_TO_SHORT))
    while True:
        data, descriptors, _, _ = socket.recv_fds(orders, MAX_ORDER_BYTES, 2)
        if not data:
            return
        recording, result = descriptors
        with socket.socket(fileno=result) as to_caller:
            _decode(Order.from_bytes(data), recording, to_caller)
        os.close(recording)


def _decode(order: Order, recording: int, result: socket.socket) -> None:
    """Send the pieces of the open file `recording`, and then that they are all, or why there are no more.

    The process is killed where it needs more CPU time than `order.limits` allow.
    """
    if not order.live:
        signal.setitimer(signal.ITIMER_PROF, _LONG_SEC)
    _limit_memory(order.limits.memory_bytes)
    _Log.sends_to(result)
    if order.live:
        _send_all(order, partial(_LiveBlocks, order, recording), result)
        return
    peaks = _Peaks()
    opened = partial(_charged_recordings, order, f"/proc/self/fd/{recording}")
    send_pieces(order, (lambda: peaks.of(opened())) if order.peaks else opened, result, peaks)


class _Peaks:
    """The peaks of the recordings that an order stands for."""

    def __init__(self) -> None:
        self._recordings: list[PeaksOf] = []

    def of(self, recordings: Sequence[tuple[Selection, Blocks]]) -> list[tuple[Selection, PeaksOf]]:
        found = [(single, PeaksOf(recording)) for single, recording in recordings]
        self._recordings = [recording for _, recording in found]
        return found

    def taken(self) -> dict[str, Any]:
        """For the header of a message."""
        found = [peaks for recording in self._recordings if (peaks := recording.taken()) is not None]
        return {"peaks": found} if found else {}


def send_pieces(order: Order, recordings: OpenRecordings, result: socket.socket, peaks: _Peaks | None = None) -> None:
    """Send the pieces of the `recordings` that the order's selection stands for, and how they end."""

    def pieces() -> RecordingBlocks | RecordingPieces:
        if order.max_utterance_sec is None:
            return RecordingBlocks(recordings, order.selection)
        return RecordingPieces(recordings, order.selection, max_utterance_sec=order.max_utterance_sec)

    _send_all(order, pieces, result, peaks)


class _Pieces(Protocol):
    @property
    def decoded_sec(self) -> float: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    def __iter__(self) -> Iterator[Piece]: ...


def _send_all(order: Order, opened: Callable[[], _Pieces], result: socket.socket, peaks: _Peaks | None = None) -> None:
    """Send the pieces, and how they end."""
    try:
        _send_pieces(opened(), result, peaks or _Peaks())
    except MoulinError as error:
        kind = next(kind for kind in ERRORS if isinstance(error, ERRORS[kind]))
        _send(result, {"error": kind, "message": error.message, "hint": error.hint})
    except MemoryError:
        message = f"{order.name} cannot be decoded: it needs more than {order.limits.memory_bytes >> 20} MiB of memory"
        _send(result, {"error": "audio", "message": message, "hint": None})
    except Exception as error:
        logger.exception("%s: decoding failed", order.name)
        _send(result, {"error": UNEXPECTED, "message": f"{type(error).__name__}: {error}", "hint": None})


def _send_pieces(pieces: _Pieces, result: socket.socket, peaks: _Peaks) -> None:
    for piece in pieces:
        place = None if piece.place is None else [piece.place.channel, piece.place.track]
        header = {"start": piece.start_samples, "place": place, "decoded_sec": pieces.decoded_sec}
        _send(result, header | peaks.taken(), piece.waveform)
    done = {"done": True, "decoded_sec": pieces.decoded_sec, "warnings": pieces.warnings}
    _send(result, done | peaks.taken())


def _charged_recordings(order: Order, path: str) -> list[tuple[Selection, ChargedRecording]]:
    """The recordings, each block of which allows the process more CPU time."""
    budget = CpuBudget(order.limits)
    opened = opened_recordings(path, order.selection, max_duration_sec=order.max_audio_sec, name=order.name)
    return [(single, ChargedRecording(recording, budget)) for single, recording in opened]


class _LiveBlocks(Iterator[Piece]):
    """The audio of an open pipe or socket as it comes."""

    def __init__(self, order: Order, descriptor: int) -> None:
        self._name, self._budget = order.name, CpuBudget(order.limits)
        self._input = LiveInput(descriptor, order.name)
        self._blocks = iter(self._input)
        self._samples = 0

    @property
    def decoded_sec(self) -> float:
        return self._samples / SAMPLE_RATE

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._input.warnings

    def __next__(self) -> Piece:
        for block in self._blocks:
            if len(block):
                piece = Piece(self._samples, block)
                self._samples += len(block)
                self._budget.allow(len(block))
                return piece
        self._input.close()
        if self._input.fault is not None:
            raise AudioError(f"{self._name} cannot be decoded any further: {self._input.fault}")
        raise StopIteration


def _limit_memory(more: int) -> None:
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return  # for the recording before this one
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _send(result: socket.socket, header: dict[str, Any], samples: Floats | None = None) -> None:
    """Waits while the caller does not read. A caller that has gone ends this process."""
    try:
        for part in packed(header, samples):
            if part:  # the caller may have closed its end when it has the header of the last message
                result.sendall(part)
    except (BrokenPipeError, ConnectionResetError):
        os.kill(os.getpid(), signal.SIGKILL)


class _Log(logging.Handler):
    """Sends what is logged to the caller, whose log has a format and a place."""

    def __init__(self, result: socket.socket) -> None:
        super().__init__()
        self._result = result

    @classmethod
    def sends_to(cls, result: socket.socket) -> None:
        logging.getLogger().handlers[:] = [cls(result)]

    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)  # with a traceback, where there is one
        _send(self._result, {"log": record.name, "level": record.levelno, "message": message})
