"""A process that has the decoders' libraries loaded, and forks for each recording.

    python -m moulin.isolated_decoding.fork_server DESCRIPTOR

On the socket with that number it takes orders and kills, and reports which process has ended how. It ends with its
caller, and its forks end with it. It has one thread, so that a fork finds no lock taken.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import socket
import sys

# Read where numpy and PyTorch are first imported: threads would not survive a fork.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

from moulin.isolated_decoding.decode import decode
from moulin.isolated_decoding.messages import MAX_ORDER_BYTES, Order

_PR_SET_PDEATHSIG = 1


class ForkServer:
    """One caller's processes."""

    def __init__(self, caller: socket.socket) -> None:
        self._caller = caller
        self._running: dict[int, int] = {}
        """The order of each process that has not been reaped."""
        self._process = os.getpid()
        self._libc = ctypes.CDLL(None)

    def serve(self) -> None:
        """Until the caller closes its end."""
        woken, wakes = socket.socketpair()
        for end in (woken, wakes):
            end.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._caller, selectors.EVENT_READ)
            waiting.register(woken, selectors.EVENT_READ)
            self._report({"ready": True})
            while True:
                for key, _ in waiting.select():
                    if key.fileobj is woken:
                        woken.recv(4096)
                    elif not self._take_order():
                        return
                self._reap()

    def _take_order(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._caller, MAX_ORDER_BYTES, 2)
        if not data:
            return False
        message = json.loads(data)
        if "kill" in message:
            for process, number in self._running.items():
                if number == message["kill"]:
                    os.kill(process, signal.SIGKILL)
            return True
        order = Order.from_bytes(data)
        process = os.fork()
        if process == 0:
            self._become(order, *descriptors)
        self._running[process] = order.number
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _become(self, order: Order, recording: int, result: int) -> None:
        """The life of a fork, which never returns."""
        status = 1
        try:
            self._libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != self._process:  # it ended before that: no signal comes
                return
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._caller.close()
            decode(order, recording, socket.socket(fileno=result))
            status = 0
        finally:
            os._exit(status)

    def _reap(self) -> None:
        while self._running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            self._report({"ended": self._running.pop(process), "status": os.waitstatus_to_exitcode(status)})

    def _report(self, message: dict[str, int | bool]) -> None:
        self._caller.send(json.dumps(message).encode())


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller, whose end ends this
    _load_libraries()
    try:
        ForkServer(socket.socket(fileno=int(sys.argv[1]))).serve()
    except (BrokenPipeError, ConnectionResetError):  # the caller has gone
        return


def _load_libraries() -> None:
    """What a fork would else import for itself. A missing one is reported by the recording that needs it."""
    import contextlib
    import importlib

    for library in ("soundfile", "soxr", "av"):
        with contextlib.suppress(Exception):
            importlib.import_module(library)
    from moulin.errors import EngineError
    from moulin.long_audio.voice_activity import VoiceActivity

    with contextlib.suppress(EngineError):
        VoiceActivity()


if __name__ == "__main__":
    main()
