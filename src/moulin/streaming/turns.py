"""The input of a step of many streams, from the recognizer to a stepper, which returns a `Found`."""

from __future__ import annotations

from dataclasses import dataclass

from moulin.arrays import Ints32
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Continuation


@dataclass(frozen=True, slots=True)
class Turns:
    """The N streams that a step takes one chunk further, one value a stream."""

    continuation: Continuation
    """The streams' slots, and the points from which their searches go on."""
    numbers: Ints32
    """[N]: chunks that each stream has had before."""
    heard: Ints32
    """[N]: samples of each window that have arrived, counted from the window's first; silence follows them."""
    options: RowOptions
