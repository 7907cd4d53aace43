"""Pages of tensors in shared memory, which are given back where others have plenty."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from moulin.launch.shared_memory import SHM_DIR
from moulin.triton_repo.tensor_memory import LARGE_BYTES, release


@pytest.mark.parametrize(
    ("num_bytes", "free_times", "released"),
    [(LARGE_BYTES, 2, True), (LARGE_BYTES, 1, False), (LARGE_BYTES, 0, False), (LARGE_BYTES - 4096, 2, False)],
)
def test_release(num_bytes: int, free_times: int, released: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a hole that nobody can fill any more tritonserver ends with SIGBUS."""
    free = free_times * num_bytes
    file = Path(SHM_DIR) / f"moulin-test-{os.getpid()}"
    try:
        file.write_bytes(b"\1" * num_bytes)
        with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as memory:
            monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((1, 1, 0, 0, free, 0, 0, 0, 0, 255)))
            monkeypatch.setattr(np, "from_dlpack", lambda _: np.frombuffer(memory, np.float32))
            release(SimpleNamespace(inputs=lambda: [SimpleNamespace(name=lambda: "WAV")]))
            monkeypatch.undo()
        assert (file.stat().st_blocks == 0) is released
    finally:
        file.unlink()
