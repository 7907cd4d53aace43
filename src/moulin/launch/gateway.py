"""The gateway as a process beside Triton: started, watched, started again, and stopped with its owner."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from moulin.errors import LaunchError
from moulin.launch.answers import answers
from moulin.launch.backoff import Backoff
from moulin.launch.liveness import Failure, LoadLiveness, ProcessLiveness
from moulin.launch.supervision import SupervisionBoard
from moulin.launch.vital_signs import family_activity, signs_of

_POLL_SEC = 0.1
_LOOK_SEC = 1.0
_IDLE_START_SEC = 60.0
_FIRST_PAUSE_SEC = 1.0
_KILLED_SEC = 5.0
_EXIT_GRACE_SEC = 8.0
"""Time for the gateway to exit, beyond that which it has to drain."""


class GatewayProcess:
    """A process of `moulin gateway`; a context manager that waits until it answers, and stops it.

    The process has its own session, so that a terminal's Ctrl-C reaches only the owner, and ends with the owner even if
    that is killed: it must be started by a thread that lives as long as the owner. It shares the owner's output.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        address: str,
        tls: bool = False,
        environ: Mapping[str, str] = os.environ,
        board: SupervisionBoard | None = None,
        drain_sec: float = 10.0,
    ) -> None:
        """`address` is the HOST:PORT at which the gateway will answer, over HTTPS with `tls`; it publishes what `board`
        says, and drains for `drain_sec` when it is stopped."""
        self._arguments, self._address, self._tls = arguments, address, tls
        self._environ, self._board, self._drain_sec = environ, board, drain_sec
        self._process: subprocess.Popen[bytes] | None = None
        self._liveness = ProcessLiveness("The gateway")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """None before `start`."""
        return self._process.pid if self._process else None

    def start(self, cancelled: threading.Event | None = None) -> None:
        """Start the process, or a new one after it has ended, and wait until it answers, or `cancelled` is set.

        Waits as long as it, or one of its workers, does something. Raises LaunchError.
        """
        launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("parent_death.py")), str(os.getpid())]
        board = ["--supervision-fd", str(self._board.fd)] if self._board else []
        self._process = subprocess.Popen(
            [
                *launcher,
                *(sys.executable, "-m", "moulin", "gateway", *self._arguments),
                *("--drain-sec", f"{self._drain_sec:g}", *board),
            ],
            stdin=subprocess.DEVNULL,
            env=dict(self._environ),
            start_new_session=True,
            pass_fds=(self._board.fd,) if self._board else (),
        )
        self._liveness = ProcessLiveness("The gateway")
        loading = LoadLiveness(_IDLE_START_SEC)
        next_look = time.monotonic()
        while not answers(self._address, "/healthz", tls=self._tls):
            now = time.monotonic()
            if cancelled is not None and cancelled.is_set():
                raise LaunchError("Expected the gateway to start, got a stop before it answered")
            if self._process.poll() is not None:
                raise LaunchError(f"Expected the gateway to start, got exit code {self._process.returncode}")
            if now >= next_look:
                next_look = now + _LOOK_SEC
                signs = signs_of(self._process.pid)
                if signs is not None and (failure := self._liveness.observe(signs, now)):
                    raise LaunchError(f"Expected the gateway to start, got: {failure.reason}")
                if loading.observe(*family_activity(self._process.pid), now):
                    raise LaunchError(
                        f"Expected the gateway to answer at {self._address}, got {_IDLE_START_SEC:g} s in which it did "
                        "nothing"
                    )
            time.sleep(_POLL_SEC)

    def poll(self) -> int | None:
        """The exit code, or None while it runs or has not been started."""
        return self._process.poll() if self._process else None

    def failure(self) -> Failure | None:
        """What is wrong with it since `start`; to be called about once a second."""
        if self._process is None:
            return None
        if (code := self._process.poll()) is not None:
            return Failure("ended", f"The gateway ended with exit code {code}")
        answering = answers(self._address, "/healthz", tls=self._tls)
        signs = signs_of(self._process.pid)
        return self._liveness.observe(signs, time.monotonic(), answers=answering) if signs else None

    def kill(self) -> None:
        """End it at once, and wait: its port is free afterwards."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_KILLED_SEC)

    def stop(self) -> None:
        """Stop it after it has drained. Idempotent."""
        if self._process is None or self._process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(self._drain_sec + _EXIT_GRACE_SEC)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class KeptGateway:
    """A gateway on a thread of its own: started again, after longer and longer pauses, however often it fails.

    A context manager whose entry returns when the first answers, or raises LaunchError.
    """

    def __init__(
        self, process: GatewayProcess, *, on_restart: Callable[[str], None], board: SupervisionBoard | None = None
    ) -> None:
        """`on_restart` receives the reason for a restart on the thread; `board` its cause."""
        self._process, self._on_restart, self._board = process, on_restart, board
        self._backoff = Backoff()
        self._stopping = threading.Event()
        self._begun = threading.Event()
        self._first_error: BaseException | None = None
        # The kernel ends the process with the thread that started it, so one thread does both.
        self._thread = threading.Thread(target=self._run, name="moulin-gateway", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._begun.wait()
        except BaseException:
            self.stop()
            raise
        if self._first_error is not None:
            self._thread.join()
            raise self._first_error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop the gateway after it has drained. Idempotent."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def kill(self) -> None:
        """End it at once."""
        self._stopping.set()
        self._process.kill()

    def _run(self) -> None:
        try:
            self._process.start(self._stopping)
        except BaseException as error:  # for the thread that waits
            self._first_error = error
            self._process.kill()
            return
        finally:
            self._begun.set()
        self._note_running()
        ready_at = time.monotonic()
        while not self._stopping.wait(_LOOK_SEC):
            if failure := self._process.failure():
                self._restart(failure, time.monotonic() - ready_at)
                ready_at = time.monotonic()
        self._process.stop()

    def _restart(self, failure: Failure, ran_sec: float) -> None:
        while not self._stopping.is_set():
            self._on_restart(failure.reason)
            if self._board is not None:
                self._board.restart("gateway", failure)
            self._process.kill()
            self._stopping.wait(self._backoff.pause_sec(ran_sec, _FIRST_PAUSE_SEC))
            try:
                if not self._stopping.is_set():
                    self._process.start(self._stopping)
                self._note_running()
                return
            except LaunchError as error:
                failure, ran_sec = Failure("not_ready", error.message), 0.0
        self._process.kill()

    def _note_running(self) -> None:
        if self._board is not None:
            self._board.state("gateway", "running")
