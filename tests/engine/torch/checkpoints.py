"""Checkpoints beside exports, and audio for both."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moulin.arrays import Floats
from moulin.decoding.options import Method
from tests.bundles import BUNDLES

METHODS: tuple[Method, ...] = ("greedy", "modified_beam_search")


def checkpoint(bundle: str) -> Path:
    return BUNDLES / bundle / "epoch-1.pt"


def audios() -> list[Floats]:
    return [
        0.1 * np.random.default_rng(length).standard_normal(length, dtype=np.float32)
        for length in (200, 9_000, 33_333, 64_000)
    ]
