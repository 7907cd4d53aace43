"""A step of many streams: what the recognizer tells a stepper. What it hears back is a `Found`."""

from __future__ import annotations

from dataclasses import dataclass

from moulin.arrays import Ints32
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Continuation


@dataclass(frozen=True, slots=True)
class Turns:
    """The N streams that are taken one chunk further, and how far each is: one value a stream."""

    continuation: Continuation
    """The streams' slots, and from where their searches go on."""
    numbers: Ints32
    """[N]: chunks that each stream has had before."""
    heard: Ints32
    """[N]: samples that are there of its window, counted from the window's first; behind them comes silence."""
    options: RowOptions
