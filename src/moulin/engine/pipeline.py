"""The seam between the offline recognizer and whatever takes utterances from waveforms to hypotheses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from moulin.arrays import Floats
from moulin.decoding.found import Hypothesis
from moulin.decoding.row_options import RowOptions
from moulin.errors import MoulinError


class Pipeline(Protocol):
    """A loaded offline transducer. All methods may be called from several threads at once."""

    @property
    def max_utterance_sec(self) -> float:
        """The longest waveform that `check` lets pass."""

    def check(self, waveform: Floats, *, what: str) -> Floats:
        """`waveform`, which messages call `what`, as `__call__` takes it.

        Raises AudioError for NaN, a wrong scale or too great a length.
        """

    def check_form(self, waveform: Floats, *, what: str) -> Floats:
        """`check`, less what `__call__` finds by itself. Raises AudioError."""

    def __call__(
        self, waveforms: Sequence[Floats], options: RowOptions, names: Sequence[str]
    ) -> list[Hypothesis | MoulinError]:
        """The best hypothesis of each of N waveforms that `check_form` has passed, or what is wrong with it, calling it
        by its name of `names`: one that cannot be transcribed takes no other along. Raises EngineError."""

    def close(self) -> None:
        """Stop the worker threads."""
