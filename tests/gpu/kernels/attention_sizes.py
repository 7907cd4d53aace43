"""Sizes of attention in several tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    lengths: tuple[int, ...]
    heads: int
    query_dim: int
    pos_dim: int
    value_dim: int
    channels: int


SIZES = [Sizes((37, 5, 1), 3, 5, 4, 6, 21), Sizes((70, 130), 2, 32, 3, 12, 144)]
