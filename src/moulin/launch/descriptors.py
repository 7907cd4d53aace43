"""File descriptors: the limit raised as far as it goes, and checked before it is reached."""

from __future__ import annotations

import contextlib
import os
import resource

from moulin.errors import LaunchError

_MOST = 1 << 20
"""Enough, and not the billion of some container runtimes: there are programs that close every possible descriptor."""
_HINT = "raise it: `ulimit -n 65536`, LimitNOFILE=65536 for systemd, --ulimit nofile=65536:65536 for docker run"
_UNLIMITED = resource.RLIM_INFINITY

TRITON_NEEDS = 128
"""Descriptors of a tritonserver on two cores: 62 at rest, and room for its threads and a few dozen connections."""
TRITON_NEEDS_PER_MODEL = 8
TRITON_NEEDS_PER_CORE = 2
_CORES = 32
"""More cores give it no more threads for connections."""


def raise_limit() -> int:
    """Raise this process's limit on open files to the hard limit, for its children too; returns what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == _UNLIMITED else min(hard, _MOST)
    if soft == _UNLIMITED:
        return _MOST
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def expect_descriptors(needed: int, what: str) -> int:
    """Raise the limit, and return it. Raises LaunchError where it stays below `needed`."""
    limit = raise_limit()
    if limit < needed:
        raise LaunchError(f"Expected at least {needed} open files (ulimit -n) for {what}, got {limit}", hint=_HINT)
    return limit


def triton_needs(num_models: int) -> int:
    """Descriptors for a tritonserver with so many models."""
    cores = min(_CORES, os.cpu_count() or 1)
    return TRITON_NEEDS + TRITON_NEEDS_PER_MODEL * num_models + TRITON_NEEDS_PER_CORE * cores
