"""Requests with one thing wrong, for offline and streaming models alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from moulin.arrays import Floats

from .sherpa_client import Tensors, tensors


class Damaged:
    """Requests that would be fine with `speech`, float32 [N]."""

    def __init__(self, speech: Floats) -> None:
        self._speech = speech

    def wav(self, change: Callable[[Any], Any]) -> Tensors:
        """With WAV [1, N] after `change`."""
        return {**tensors([self._speech]), "WAV": change(self._speech[None].copy())}

    def lens(self, *lengths: int) -> Tensors:
        """With other WAV_LENS, a row for each."""
        return {**tensors([self._speech]), "WAV_LENS": np.array([[length] for length in lengths], np.int32)}

    def without(self, name: str) -> Tensors:
        request = tensors([self._speech])
        del request[name]
        return request


def with_nan(wav: Any) -> Any:
    wav[0, 7] = np.nan
    return wav
