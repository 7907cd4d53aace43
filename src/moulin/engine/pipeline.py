"""The seam between the offline recognizer and whatever takes utterances from waveforms to hypotheses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from moulin.arrays import Floats
from moulin.decoding.found import Hypothesis
from moulin.decoding.row_options import RowOptions
from moulin.errors import MoulinError

Answer = Callable[[Sequence[int], Sequence[Hypothesis | MoulinError]], None]
"""A callback (positions, best hypothesis or error of each of these waveforms)."""


class Pipeline(Protocol):
    """A loaded offline transducer. All methods may be called from several threads at once."""

    @property
    def num_workers(self) -> int:
        """Calls that are worth having under way at once, each of one utterance; 1 where batches are cheaper."""

    @property
    def max_utterance_sec(self) -> float:
        """The longest waveform that `check` lets pass."""

    def check(self, waveform: Floats, *, what: str) -> Floats:
        """`waveform` as `__call__` takes it; messages call it `what`.

        Raises AudioError for NaN, a wrong scale or too great a length.
        """

    def check_form(self, waveform: Floats, *, what: str) -> Floats:
        """The part of `check` that `__call__` does not do itself. Raises AudioError."""

    def __call__(self, waveforms: Sequence[Floats], options: RowOptions, names: Sequence[str], answer: Answer) -> None:
        """Search N waveforms that have passed `check_form`. Errors call waveforms by their `names`; a faulty waveform
        does not affect the others.

        `answer` is called with those that are found together: on a GPU while others are still searched. Raises
        EngineError.
        """

    def close(self) -> None:
        """Stop the worker threads."""
