"""A group of identical worker processes, kept running."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from moulin.launch.backoff import Backoff
from moulin.launch.liveness import Failure, ProcessLiveness
from moulin.launch.supervision import SupervisionBoard
from moulin.launch.vital_signs import signs_of

_LOOK_SEC = 1.0
_FIRST_PAUSE_SEC = 1.0
_EXIT_GRACE_SEC = 5.0
"""Time for workers to exit, beyond that which they have to drain."""


def run_workers(
    command: Sequence[str],
    count: int,
    *,
    environ: Mapping[str, str],
    pass_fds: Sequence[int],
    board: SupervisionBoard,
    on_end: Callable[[int, str], None],
    on_stop: Callable[[], None],
    drain_sec: float,
) -> None:
    """Keep `count` processes of `command` running until KeyboardInterrupt, and then let them finish.

    All inherit the descriptors `pass_fds`, a shared listening socket among them. A process that ends, is stopped or
    hangs is replaced, the others are not touched; `on_end` receives its process id and the reason, `board` the cause.
    All end with this process, even if it is killed. `on_stop` is called when they are told to finish, for which they
    have `drain_sec`.
    """
    workers = [_Worker(command, environ, pass_fds) for _ in range(count)]
    board.state("worker", "running")
    try:
        while True:
            time.sleep(_LOOK_SEC)
            for worker in workers:
                if failure := worker.look(time.monotonic()):
                    board.restart("worker", failure)
                    on_end(worker.pid, failure.reason)
            if all(worker.runs for worker in workers):
                board.state("worker", "running")
    finally:
        on_stop()
        _stop(workers, drain_sec)


class _Worker:
    """The place of one worker, taken by one process after another."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], pass_fds: Sequence[int]) -> None:
        self._command, self._environ, self._pass_fds = command, environ, pass_fds
        self._backoff = Backoff()
        self._start_at: float | None = None
        self._start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def runs(self) -> bool:
        """False during the pause before a restart."""
        return self._start_at is None

    def look(self, now: float) -> Failure | None:
        """The failure of the process, which is ended then; another starts after a pause."""
        if self._start_at is not None:
            if now >= self._start_at:
                self._start()
            return None
        failure = self._failure(now)
        if failure is not None:
            self.process.kill()
            self.process.wait()
            self._start_at = now + self._backoff.pause_sec(now - self._started, _FIRST_PAUSE_SEC)
        return failure

    def _start(self) -> None:
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("parent_death.py")), str(os.getpid())]
        self.process = subprocess.Popen(
            [*launcher, *self._command],
            stdin=subprocess.DEVNULL,
            env=dict(self._environ),
            pass_fds=self._pass_fds,
            start_new_session=True,
        )
        self._started, self._start_at = time.monotonic(), None
        self._liveness = ProcessLiveness("A worker")

    def _failure(self, now: float) -> Failure | None:
        if (code := self.process.poll()) is not None:
            return Failure("ended", f"A worker ended with exit code {code}")
        signs = signs_of(self.process.pid)
        return self._liveness.observe(signs, now) if signs else None


def _stop(workers: Sequence[_Worker], drain_sec: float) -> None:
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            worker.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + drain_sec + _EXIT_GRACE_SEC
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
