"""Memory of input tensors: Triton keeps the shared memory between itself and a python model at its largest size ever.

One request with 200 MB of padding would take them for good. While a request is not answered its tensors are the model's
own, so the model can return their pages to the system; the next request that gets this part of the memory finds zeros.
Where there are no pages left by then tritonserver ends with SIGBUS, so they are returned only where there is plenty.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any

import numpy as np

from moulin.launch.shared_memory import SHM_DIR
from moulin.triton_repo import contract

LARGE_BYTES = 1 << 24
"""Tensors of fewer bytes are left alone: their pages will soon be used again, and new ones cost time."""

_PLENTY = 2
"""So many times the size of a tensor must be free beside it."""
_MADV_REMOVE = 9  # linux/mman.h: free the pages of a shared mapping and of what it maps


def release(request: Any) -> None:
    """Return the pages of the large tensors of `request`, a pb_utils.InferenceRequest, whose contents are lost. What
    `as_numpy` has returned before is a copy, and stays."""
    for tensor in request.inputs():
        if tensor.name() in (contract.WAV, contract.WAV_INT16):
            _release(np.from_dlpack(tensor))


def _release(samples: np.ndarray[Any, Any]) -> None:
    """Free the pages that lie in `samples`. Where they are not shared memory the system refuses, and they stay."""
    if samples.nbytes < LARGE_BYTES or not samples.flags.c_contiguous or not _is_plenty_beside(samples.nbytes):
        return
    address, page = samples.ctypes.data, mmap.PAGESIZE
    begin, end = -(-address // page) * page, (address + samples.nbytes) // page * page
    ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_REMOVE)


def _is_plenty_beside(num_bytes: int) -> bool:
    free = os.statvfs(SHM_DIR)
    return free.f_bavail * free.f_frsize >= _PLENTY * num_bytes
