"""One confidence of several words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from moulin.transcript import Word


def confidence_of(words: Sequence[Word]) -> float:
    """The geometric mean of the words' confidences, as theirs is of their tokens'; 0 without words."""
    if not words:
        return 0.0
    return math.exp(math.fsum(math.log(max(word.confidence, 1e-9)) for word in words) / len(words))
