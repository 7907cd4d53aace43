"""Limits on threads and processes (ulimit -u, a container's pids), at which Triton aborts or hangs while it loads."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from _thread import allocate_lock, start_new_thread

from moulin.errors import LaunchError

HINT = (
    "raise it: `ulimit -u 4096` (all threads of the user count), TasksMax= for systemd, --pids-limit for docker run, "
    "podPidsLimit for Kubernetes"
)
_STACK_BYTES = 1 << 16
"""Of a thread that does nothing; the usual 8 MiB could reach a limit on address space instead."""

_TRITON = 110
"""Threads of a tritonserver, 101 on two cores with two models, and of the process that watches it. One more a core."""
_INSTANCE = 8
"""Of a model's process beside its runtime's and those that answer requests, which are three a core."""
GATEWAY_NEEDS = 96
"""Of a gateway: 12 at rest, 40 that receive uploads, a few of gRPC, and 32 processes that decode recordings."""
_MOST_CORES = 64


def expect_threads(needed: int, what: str) -> None:
    """Raises LaunchError where `what` would need more threads and processes than can be started now.

    They are started and ended, for there are several limits, and what counts towards them cannot be seen from within a
    container. It takes some 20 ms.
    """
    _raise_limit()
    if (possible := startable(needed)) < needed:
        raise LaunchError(
            f"Expected room for {needed} threads and processes (ulimit -u) for {what}, got {possible}", hint=HINT
        )


def service_needs(num_instances: int, *, gateways: int) -> int:
    """Threads and processes of a service with so many processes of models, when it is busy."""
    cores = min(_MOST_CORES, len(os.sched_getaffinity(0)))
    return _TRITON + cores + num_instances * (_INSTANCE + 3 * cores) + gateways * GATEWAY_NEEDS


def startable(wanted: int) -> int:
    """How many threads can be started now beside those that run: `wanted` at most, all of which end."""
    may_end = allocate_lock()
    usual = threading.stack_size(_STACK_BYTES)

    def wait() -> None:
        with may_end:
            pass

    started = 0
    with may_end, contextlib.suppress(RuntimeError):
        try:
            while started < wanted:
                start_new_thread(wait, ())
                started += 1
        finally:
            threading.stack_size(usual)
    return started


def is_out_of_threads(error: Exception) -> bool:
    """Whether `error` is Python's for a thread that could not be started."""
    return isinstance(error, RuntimeError) and str(error) == "can't start new thread"


def _raise_limit() -> None:
    """The soft limit of this process and its children becomes the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
