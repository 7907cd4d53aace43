"""Replies by Triton's response senders, also where shared memory is full. Imported only inside Triton's stub process.

A sender takes one reply. Where that finds no room in shared memory the sender raises, refuses another one, and Triton
waits for ever, and the client with it. A reply that is sent without the flag that ends the request leaves the request
open: it can be ended without a reply, which Triton answers with an error at once. That is a second exchange with
tritonserver, so it is done only where little shared memory is left.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, Self

import triton_python_backend_utils as pb_utils

from moulin.launch.shared_memory import SHM_DIR, STUB_GROWTH

logger = logging.getLogger(__name__)

_REPLY_BYTES = 16 << 20
"""More than any reply has."""
_HINT = "start the container with more --shm-size, or remove what fills it"


class ReplyDelivery:
    """Sends the replies of one model instance; for all its threads."""

    def __init__(self, model: str, growth_bytes: int, shm_dir: Path = SHM_DIR) -> None:
        """`growth_bytes` is what the memory shared with Triton grows by; `shm_dir` is where it lies."""
        self._model, self._dir = model, shm_dir
        self._needed_bytes = growth_bytes + _REPLY_BYTES
        self._is_short = False

    @classmethod
    def of_this_process(cls, model: str) -> Self:
        """For a stub; Triton tells it by how much its memory grows."""
        return cls(model, int(Path("/proc/self/cmdline").read_bytes().split(b"\0")[STUB_GROWTH]))

    def has_room(self) -> bool:
        """Whether any reply can be sent. Where it comes to an end, or is there again, a line says so."""
        free = os.statvfs(self._dir)
        free_bytes = free.f_bavail * free.f_frsize
        is_short = free_bytes < self._needed_bytes
        if is_short != self._is_short:
            self._is_short = is_short
            print(self._news(free_bytes), file=sys.stderr, flush=True)
        return not is_short

    def send(self, sender: Any, response: Any) -> None:
        """End a request with `response`, or, where there is no room for it, with an error of Triton's.

        Where even that finds no room the process ends: its clients get an error at once, and the memory is given back.
        Never raises; what a sender refuses for another reason is logged.
        """
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            if self.has_room():
                sender.send(response, flags=final)
            else:
                self._send_or_end(sender, response)
                sender.send(flags=final)
        except Exception as error:
            if not self.has_room():
                self._end(error)
            logger.exception("A reply could not be delivered")  # the others' replies are to be sent all the same

    def _send_or_end(self, sender: Any, response: Any) -> None:
        try:
            sender.send(response, flags=0)
        except Exception as error:
            logger.warning("%s: no shared memory for a reply, its client gets an error: %s", self._model, error)

    def _news(self, free_bytes: int) -> str:
        free = f"{free_bytes >> 20} MiB free in {self._dir}"
        if not self._is_short:
            return f"{self._model}: shared memory is there again, {free}"
        return f"{self._model}: shared memory is short, {free}: requests may fail (hint: {_HINT})"

    def _end(self, error: Exception) -> None:
        print(
            f"{self._model}: shared memory is full, a request can be neither answered nor ended: {error}; the process "
            f"ends, so that no client waits for it (hint: {_HINT})",
            file=sys.stderr,
            flush=True,
        )
        os.kill(os.getpid(), signal.SIGKILL)
