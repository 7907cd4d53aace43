"""Parameters on a card, once for all models of this process that have the same ones.

A recognizer of recordings and one of streams, of one checkpoint or of two exports of it, compute with the same
parameters in the same form. They are told by their values, so that nobody has to know what was made of what.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

Made = TypeVar("Made")

_held: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
_lock = threading.RLock()


def shared(parameter: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`parameter`, best in the host's memory, on `device` in `dtype`: the same tensor for the same values, while
    anyone holds it. It must not be written to."""
    if device.type == "meta":
        return parameter.detach().to(device, dtype)
    here = parameter.detach().to(dtype)
    device = torch.empty(0, device=device).device  # `cuda` is the current card, whose name has a number
    return held_once((device, dtype, here.shape, here.stride(), digest(here)), lambda: here.to(device))


def held_once(key: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` made for `key`, while anyone holds it; else it is made now."""
    with _lock:
        held: Made | None = _held.get(key)
        if held is None:
            held = _held[key] = make()
        return held


def digest(tensor: Tensor) -> bytes:
    """SHA-256 of the values of a tensor, in the order in which they lie in memory."""
    dense = tensor if tensor.is_contiguous() else tensor.t() if tensor.dim() == 2 else tensor.contiguous()
    return hashlib.sha256(dense.contiguous().view(-1).view(torch.uint8).cpu().numpy().data).digest()
