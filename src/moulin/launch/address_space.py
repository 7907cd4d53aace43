"""A limit on address space (ulimit -v), with which Triton hangs or fails in the middle of something."""

from __future__ import annotations

import re
import resource

from moulin.errors import LaunchError

COMMAND_GIB = 0.5
"""Of any command: with less, libraries fail anywhere, or hang because they get no thread (gRPC with 400 MiB)."""
TRITON_GIB = 2.5
"""tritonserver maps 1.9 GiB with the two demo models, most of which it never uses; with 1.5 GiB a model hangs."""

HINT = "lift it: `ulimit -v unlimited`; a container's memory limit or MemoryMax of systemd bounds what is used instead"


_LACKING = re.compile(r"memory|bad_?alloc|failed to map|cannot map", re.IGNORECASE)
"""What libraries say, each with an exception of its own: protobuf a TypeError, ONNX Runtime a RuntimeError."""


def is_out_of_address_space(error: Exception) -> bool:
    """Whether `error` comes of a limit on address space: only where there is one."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY:
        return False
    return isinstance(error, ImportError | MemoryError) or _LACKING.search(str(error)) is not None


def expect_address_space(needed_gib: float) -> None:
    """Raises LaunchError where there is less."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < needed_gib * 2**30:
        raise LaunchError(
            f"Expected at least {needed_gib} GiB of address space (ulimit -v), got {limit / 2**30:.2g} GiB", hint=HINT
        )
