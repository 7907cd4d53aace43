"""What recognises whole utterances, however it does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from moulin.arrays import Floats
from moulin.bundle.spec import ModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.errors import MoulinError
from moulin.transcript import Transcript


class OfflineRecognizer(ABC):
    """Transcribes batches of utterances with one offline model. Safe to call from several threads."""

    spec: ModelSpec
    options: DecodingOptions
    """Of utterances that come without their own."""

    @abstractmethod
    def transcribe(
        self, waveforms: Sequence[Floats], options: Sequence[DecodingOptions] | None = None
    ) -> list[Transcript]:
        """Transcribe float32 waveforms [num_samples] (16 kHz, mono, in [-1, 1]), each with its own `options`.

        Raises AudioError where one of them cannot be transcribed (see `check`).
        """

    def transcribe_each(
        self,
        waveforms: Sequence[Floats],
        options: Sequence[DecodingOptions],
        names: Sequence[str],  # noqa: ARG002 - of those that find something
    ) -> list[Transcript | MoulinError]:
        """Transcribe what `check_form` has passed, or say what is wrong with it, calling it by its name of `names`: one
        that cannot be transcribed takes no other along."""
        return list(self.transcribe(waveforms, options))

    def check_form(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        """`check`, less what `transcribe_each` finds by itself. Raises AudioError."""
        return self.check(waveform, what=what)

    @abstractmethod
    def check(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        """`waveform`, which messages call `what`, as `transcribe` can use it.

        Raises AudioError for NaN, a wrong scale or too great a length.
        """

    @property
    @abstractmethod
    def max_utterance_sec(self) -> float:
        """The longest waveform that `check` lets pass."""

    @abstractmethod
    def close(self) -> None:
        """Stop the worker threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
