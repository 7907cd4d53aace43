"""What a process does that the server has forked: one recording, from a descriptor to pieces on a socket."""

from __future__ import annotations

import logging
import math
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from moulin.arrays import Floats
from moulin.audio.decode import audio_blocks
from moulin.audio.waveform import SAMPLE_RATE
from moulin.errors import MoulinError
from moulin.isolated_decoding.messages import ERRORS, UNEXPECTED, Limits, Order, packed
from moulin.long_audio.cutter import Piece
from moulin.long_audio.pieces import Pieces

logger = logging.getLogger(__name__)

_BLOCK_SEC = 1.0
_NICE = 10
"""Below everything else on the machine: many recordings at once delay each other, and not live streams."""


def decode(order: Order, recording: int, result: socket.socket) -> None:
    """Send the pieces of the open file `recording`, and then that they are all, or why there are no more.

    The process is killed where it needs more CPU time than `order.limits` allow.
    """
    os.nice(_NICE)
    _limit_memory(order.limits.memory_bytes)
    _Log.sends_to(result)
    path = f"/proc/self/fd/{recording}"
    blocks = audio_blocks(path, max_duration_sec=order.max_audio_sec, name=order.name)
    send_pieces(order, _charged(blocks, order.limits), result)


def send_pieces(order: Order, blocks: Iterator[Floats], result: socket.socket) -> None:
    """Send the pieces of `blocks` [n] each, and how they end."""
    try:
        _send_pieces(order, blocks, result)
    except MoulinError as error:
        kind = next(kind for kind in ERRORS if isinstance(error, ERRORS[kind]))
        _send(result, {"error": kind, "message": error.message, "hint": error.hint})
    except MemoryError:
        message = f"{order.name} cannot be decoded: it needs more than {order.limits.memory_bytes >> 20} MiB of memory"
        _send(result, {"error": "audio", "message": message, "hint": None})
    except Exception as error:
        logger.exception("%s: decoding failed", order.name)
        _send(result, {"error": UNEXPECTED, "message": f"{type(error).__name__}: {error}", "hint": None})


def _send_pieces(order: Order, blocks: Iterator[Floats], result: socket.socket) -> None:
    decoded_sec = 0.0
    if order.max_utterance_sec is None:
        for piece in _whole(blocks):
            decoded_sec = piece.end_sec
            _send(result, {"start": piece.start_samples, "decoded_sec": decoded_sec}, piece.waveform)
    else:
        pieces = Pieces(blocks, max_utterance_sec=order.max_utterance_sec)
        for piece in pieces:
            _send(result, {"start": piece.start_samples, "decoded_sec": pieces.decoded_sec}, piece.waveform)
        decoded_sec = pieces.decoded_sec
    _send(result, {"done": True, "decoded_sec": decoded_sec})


def _whole(blocks: Iterator[Floats]) -> Iterator[Piece]:
    """All audio, in blocks of about a second."""
    waiting: list[Floats] = []
    start = samples = 0
    for block in blocks:
        waiting.append(block)
        samples += len(block)
        if samples >= _BLOCK_SEC * SAMPLE_RATE:
            yield Piece(start, np.concatenate(waiting))
            start, waiting, samples = start + samples, [], 0
    if samples:
        yield Piece(start, np.concatenate(waiting))


def _charged(blocks: Iterator[Floats], limits: Limits) -> Iterator[Floats]:
    """`blocks`, each of which allows the process more CPU time."""
    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])  # of the fork's own life: next to nothing
    decoded = 0
    allowed = 0
    while True:
        until = math.ceil(used + limits.allowed_cpu_sec(decoded / SAMPLE_RATE))
        if until != allowed:
            resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))
            allowed = until
        block = next(blocks, None)
        if block is None:
            return
        decoded += len(block)
        yield block


def _limit_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _send(result: socket.socket, header: dict[str, Any], samples: Floats | None = None) -> None:
    """Waits while the caller does not read. A caller that has gone ends this process."""
    try:
        for part in packed(header, samples):
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
