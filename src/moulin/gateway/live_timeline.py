"""Consecutive streams on Triton as one: times and segment numbers continue from one to the next."""

from __future__ import annotations

from moulin.audio.waveform import SAMPLE_RATE
from moulin.live_transcript import StreamUpdate


class Timeline:
    """The position of the current stream within all audio of a client."""

    def __init__(self) -> None:
        self._sent_sec = 0.0
        self._start_sec: float | None = None
        self._first_number = self._closed = 0

    @property
    def is_open(self) -> bool:
        """Whether a stream on Triton is open."""
        return self._start_sec is not None

    @property
    def sent_sec(self) -> float:
        """Seconds of audio sent so far."""
        return self._sent_sec

    def send(self, count: int) -> None:
        """Count the next `count` samples at 16 kHz; they open a stream if none is open."""
        if self._start_sec is None:
            self._start_sec = self._sent_sec
            self._first_number = self._closed
        self._sent_sec += count / SAMPLE_RATE

    def skip_to(self, second: float) -> None:
        """Continue at `second`: the audio before it is not sent."""
        self._sent_sec = second

    def end(self) -> None:
        """Record the end of the stream on Triton."""
        self._start_sec = None

    def placed(self, update: StreamUpdate) -> StreamUpdate:
        """`update` with times and segment numbers counted from the beginning of all audio."""
        self._closed += sum(segment.is_final for segment in update.segments)
        return update.placed(self._first_number, self._start_sec or 0.0)
