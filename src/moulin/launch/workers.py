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

_CHECK_SEC = 0.2
_RESTART_SEC = 1.0
"""The pause before a restart, in case a worker fails at every start."""
_EXIT_GRACE_SEC = 15.0


def run_workers(
    command: Sequence[str],
    count: int,
    *,
    environ: Mapping[str, str],
    pass_fd: int,
    on_end: Callable[[int, int], None],
) -> None:
    """Keep `count` processes of `command` running until KeyboardInterrupt, and then let them finish.

    All inherit the descriptor `pass_fd`, a shared listening socket. A process that ends is restarted; `on_end` receives
    its process id and exit code. All end with this process, even if it is killed.
    """
    launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("parent_death.py")), str(os.getpid())]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            env=dict(environ),
            pass_fds=(pass_fd,),
            start_new_session=True,
        )

    workers = [start() for _ in range(count)]
    try:
        while True:
            time.sleep(_CHECK_SEC)
            for number, worker in enumerate(workers):
                if worker.poll() is not None:
                    on_end(worker.pid, worker.returncode)
                    time.sleep(_RESTART_SEC)
                    workers[number] = start()
    finally:
        _stop(workers)


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            worker.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _EXIT_GRACE_SEC
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
