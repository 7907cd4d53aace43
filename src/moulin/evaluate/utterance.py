"""A recording with its reference text, as read from any manifest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moulin.errors import AudioError


@dataclass(frozen=True, slots=True)
class Utterance:
    """A recording, or a piece of one, and its reference text."""

    audio: Path
    text: str
    id: str = ""
    """Unique within its manifest; pairs the results of two runs."""
    start_sec: float = 0.0
    duration_sec: float | None = None
    """None is to the end of the file."""
    load: Callable[[], NDArray[np.float32]] | None = None
    """Reads the audio where a file and an offset do not describe it (a Lhotse cut): float32 [n], 16 kHz, mono."""

    def waveform(self) -> NDArray[np.float32]:
        """The audio, float32 [n], 16 kHz, mono. Raises AudioError."""
        from moulin.audio.decode import read_audio
        from moulin.audio.waveform import SAMPLE_RATE

        if self.load is not None:
            return self.load()
        samples = read_audio(self.audio)
        first = round(self.start_sec * SAMPLE_RATE)
        end = None if self.duration_sec is None else first + round(self.duration_sec * SAMPLE_RATE)
        if first > len(samples):
            raise AudioError(
                f"{self.id or self.audio} begins at {self.start_sec:g} s of {self.audio}, which is "
                f"{len(samples) / SAMPLE_RATE:g} s long"
            )
        return samples[first:end]
