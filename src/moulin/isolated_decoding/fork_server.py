"""A process that has the decoders' libraries loaded, and forks those that decode.

    python -m moulin.isolated_decoding.fork_server DESCRIPTOR

On the socket with that number it takes orders and kills, and reports which process has ended how. It ends with its
caller, and its forks end with it. It has one thread, so that a fork finds no lock taken.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from dataclasses import dataclass

# Read when numpy is first imported: threads would not survive a fork.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

from moulin.errors import EngineError
from moulin.isolated_decoding.decode import NICE_TO_SHORT, work
from moulin.isolated_decoding.messages import MAX_ORDER_BYTES
from moulin.long_audio.voice_activity import VoiceActivity

_PR_SET_PDEATHSIG = 1

_RECORDINGS_OF_ONE = 100
"""After which a process ends, so that nothing can grow in it for ever."""


@dataclass(eq=False, slots=True)
class _Worker:
    process: int
    orders: socket.socket
    number: int | None = None
    """The order that it works on."""
    taken: int = 0
    """How many it has had."""


class ForkServer:
    """One caller's processes. One that is done with a recording takes another, which saves a fork."""

    def __init__(self, caller: socket.socket) -> None:
        self._caller = caller
        self._workers: dict[int, _Worker] = {}
        """By process, until it is reaped."""
        self._idle: list[_Worker] = []
        self._most_idle = len(os.sched_getaffinity(0))
        self._process = os.getpid()
        self._libc = ctypes.CDLL(None)

    def serve(self) -> None:
        """Until the caller closes its end."""
        woken, wakes = socket.socketpair()
        for end in (woken, wakes):
            end.setblocking(False)
        signal.set_wakeup_fd(wakes.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)
        waiting = selectors.DefaultSelector()
        waiting.register(self._caller, selectors.EVENT_READ)
        waiting.register(woken, selectors.EVENT_READ)
        self._report({"ready": True})
        try:
            while True:
                for key, _ in waiting.select():
                    if key.fileobj is woken:
                        woken.recv(4096)
                    elif not self._take_message():
                        return
                self._reap()
        finally:
            signal.set_wakeup_fd(-1)  # processes go on ending when its sockets are closed

    def _take_message(self) -> bool:
        """Returns False where the caller has gone."""
        data, descriptors, _, _ = socket.recv_fds(self._caller, MAX_ORDER_BYTES, 2)
        if not data:
            return False
        message = json.loads(data)
        if "alive" in message:
            self._report(message)
        elif "number" in message:
            try:
                self._hand_out(data, message["number"], descriptors)
            except OSError as error:  # no process or descriptor is left for it; the others go on
                print(f"No process for a recording: {error.strerror}", file=sys.stderr)
                self._report({"ended": message["number"], "status": 1})
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            self._end(message)
        return True

    def _end(self, message: dict[str, int]) -> None:
        """Of an order that is done, or not wanted any more."""
        (number,) = message.values()
        worker = next((worker for worker in self._workers.values() if worker.number == number), None)
        if worker is None:
            return  # it has ended
        if "kill" in message:
            os.kill(worker.process, signal.SIGKILL)
            return
        worker.number = None
        may_go_on = os.getpriority(os.PRIO_PROCESS, worker.process) < NICE_TO_SHORT
        if len(self._idle) < self._most_idle and worker.taken < _RECORDINGS_OF_ONE and may_go_on:
            self._idle.append(worker)
        else:
            worker.orders.close()  # which ends it

    def _hand_out(self, order: bytes, number: int, descriptors: list[int]) -> None:
        """Raises OSError where a fork is needed and cannot be made."""
        while True:
            worker = self._idle.pop() if self._idle else self._forked(descriptors)
            worker.number, worker.taken = number, worker.taken + 1
            try:
                socket.send_fds(worker.orders, [order], descriptors)
                return
            except OSError:  # it has ended while it was idle
                worker.number = None

    def _forked(self, descriptors: list[int]) -> _Worker:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            process = os.fork()
        except OSError:
            mine.close()
            theirs.close()
            raise
        if process == 0:
            mine.close()  # else it would keep its own orders from ending
            for descriptor in descriptors:  # it gets its own with the order
                os.close(descriptor)
            self._become(theirs)
        theirs.close()
        worker = self._workers[process] = _Worker(process, mine)
        return worker

    def _become(self, orders: socket.socket) -> None:
        """The life of a fork, which never returns."""
        status = 1
        try:
            self._libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != self._process:  # it ended before that: no signal comes
                return
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._caller.close()
            for worker in self._workers.values():
                worker.orders.close()
            work(orders)
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(status)

    def _reap(self) -> None:
        while self._workers:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            worker = self._workers.pop(process)
            worker.orders.close()
            if worker in self._idle:
                self._idle.remove(worker)
            if worker.number is not None:
                self._report({"ended": worker.number, "status": os.waitstatus_to_exitcode(status)})

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
    for library in ("soundfile", "soxr", "av"):
        with contextlib.suppress(Exception):
            importlib.import_module(library)
    with contextlib.suppress(EngineError):
        VoiceActivity()


if __name__ == "__main__":
    main()
