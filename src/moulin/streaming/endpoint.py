"""When speakers have paused: `EndpointRules` of many streams at once."""

from __future__ import annotations

import sys
from dataclasses import astuple
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Bools, Doubles, Ints
from moulin.streaming.endpoint_rules import EndpointRules


class Cut(IntEnum):
    """Whether a segment ends, and why."""

    NONE = 0
    PAUSED = 1
    """Rule 1 or 2."""
    TOO_LONG = 2
    """Rule 3."""


class EndpointTable:
    """The rules of many streams, by slot."""

    def __init__(self, slots: int) -> None:
        self._seconds = np.full((3, slots), np.inf)

    def set(self, slot: int, rules: EndpointRules | None) -> None:
        """None where a stream has no endpoints."""
        # A number of seconds may be an integer beyond the range of float64.
        self._seconds[:, slot] = np.inf if rules is None else [min(sec, sys.float_info.max) for sec in astuple(rules)]

    def cuts(self, slots: Ints, silence_sec: Doubles, length_sec: Doubles, anything_said: Bools) -> NDArray[np.int8]:
        """`Cut` of each of `slots` [N], after so much trailing silence in segments of such a length.

        Rule 1 holds whether or not something was said, which matters where its time is the shorter one.
        """
        rule1, rule2, rule3 = self._seconds[:, slots]
        enough = np.where(anything_said, np.minimum(rule1, rule2), rule1)
        cuts = np.where(silence_sec >= enough, Cut.PAUSED, np.where(length_sec >= rule3, Cut.TOO_LONG, Cut.NONE))
        return cuts.astype(np.int8)
