"""A limit on address space (ulimit -v), with which Triton hangs or fails in the middle of something."""

from __future__ import annotations

import resource

from moulin.errors import LaunchError

_NEEDED_GIB = 2.5
"""tritonserver maps 1.9 GiB with the two demo models, most of which it never uses; with 1.5 GiB a model hangs."""

HINT = "lift it: `ulimit -v unlimited`; a container's memory limit or MemoryMax of systemd bounds what is used instead"


def expect_address_space() -> None:
    """Raises LaunchError where Triton has too little."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _NEEDED_GIB * 2**30:
        raise LaunchError(
            f"Expected at least {_NEEDED_GIB} GiB of address space (ulimit -v), got {limit / 2**30:.2g} GiB", hint=HINT
        )
