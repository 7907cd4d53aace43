"""When speakers have paused: `EndpointRules` of many streams at once."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Ints
from moulin.streaming.endpoint_rules import EndpointRules


class EndpointTable:
    """The rules of many streams, an array a rule, to be asked about many at once."""

    def __init__(self, slots: int) -> None:
        self._seconds = np.full((3, slots), np.inf)

    def set(self, slot: int, rules: EndpointRules | None) -> None:
        """None where a stream has no endpoints."""
        self._seconds[:, slot] = np.inf if rules is None else astuple(rules)

    def hold(
        self,
        slots: Ints,
        silence_sec: NDArray[np.float64],
        length_sec: NDArray[np.float64],
        anything_said: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """In which of `slots` a rule holds, after so much trailing silence in segments of such a length."""
        rule1, rule2, rule3 = self._seconds[:, slots]
        enough = np.where(anything_said, np.minimum(rule1, rule2), rule1)
        held: NDArray[np.bool_] = (silence_sec >= enough) | (length_sec >= rule3)
        return held
