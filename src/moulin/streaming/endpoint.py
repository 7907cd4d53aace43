"""Endpoints: the `EndpointRules` of many streams, applied at once."""

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
    """The endpoint rules of streams, by slot."""

    def __init__(self, slots: int) -> None:
        self._seconds = np.full((3, slots), np.inf)

    def set(self, slot: int, rules: EndpointRules | None) -> None:
        """Set the rules of the stream in `slot`; None for no endpoints."""
        # A number of seconds may be an integer beyond the range of float64.
        self._seconds[:, slot] = np.inf if rules is None else [min(sec, sys.float_info.max) for sec in astuple(rules)]

    def cuts(self, slots: Ints, silence_sec: Doubles, length_sec: Doubles, anything_said: Bools) -> NDArray[np.int8]:
        """The `Cut` of each of `slots` [N] after `silence_sec` [N] of trailing silence in segments of `length_sec` [N].

        Rule 1 applies also after speech, which matters where its time is shorter than that of rule 2.
        """
        rule1, rule2, rule3 = self._seconds[:, slots]
        enough = np.where(anything_said, np.minimum(rule1, rule2), rule1)
        too_long = int(Cut.TOO_LONG) * (length_sec >= rule3)
        return np.where(silence_sec >= enough, int(Cut.PAUSED), too_long).astype(np.int8)
