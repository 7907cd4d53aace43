"""Work in batches, in which an item that fails does not affect the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from moulin.errors import EngineError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def answer_together(
    items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Answer]], *, what: str = "Recognition"
) -> list[Answer | EngineError]:
    """The answer of `work` to each item: all in one batch or, if that fails, each by itself, so that only the culprit
    gets the error."""
    if not items:
        return []
    try:
        return list(work(items))
    except Exception as error:  # whatever it is, the others are to be answered
        if len(items) == 1:
            return [EngineError(f"{what} failed: {error}")]
        return [answer for item in items for answer in answer_together([item], work, what=what)]
