"""Live audio of a client: from bytes to samples at 16 kHz, in pieces long enough for a request."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.audio.containers import SNIFFED_BYTES, container_of
from moulin.audio.pcm import PcmEncoding, pcm_to_float, sample_bytes
from moulin.audio.waveform import SAMPLE_RATE, check_waveform
from moulin.errors import AudioError

MIN_RATE, MAX_RATE = 8_000, 192_000

_MIN_PIECE = SAMPLE_RATE // 10
"""The fewest samples in a request. Microphones send every 10 or 20 ms, models step about every 320 ms."""
_MAX_PIECE = 5 * SAMPLE_RATE
"""The most samples in a request, so that of a minute sent at once the first words are returned before the last."""

Samples = NDArray[Any]
"""float32 in [-1, 1], or int16."""


class ContainerSent(AudioError):
    """The bytes of a file where samples were expected."""


class LiveAudio:
    """Decodes and resamples one stream of PCM that arrives in messages of any length.

    Bytes of an incomplete sample wait for the next call.
    """

    def __init__(
        self, encoding: PcmEncoding = "s16le", sample_rate: int = SAMPLE_RATE, *, keeps_int16: bool = False
    ) -> None:
        """A decoder for mono audio; `keeps_int16` leaves s16le at 16 kHz as it is. Raises AudioError for an unknown
        encoding or a rate out of range."""
        if not MIN_RATE <= sample_rate <= MAX_RATE:
            raise AudioError(f"Expected a sample rate of {MIN_RATE} to {MAX_RATE} Hz, got {sample_rate}")
        self._encoding, self._sample_bytes = encoding, sample_bytes(encoding)
        self._sample_rate = sample_rate
        self._is_int16 = keeps_int16 and encoding == "s16le" and sample_rate == SAMPLE_RATE
        self._received = 0
        self._head: bytes | None = b""  # the beginning, until it is known to be none of a file
        self._bytes = b""
        self._waiting: list[Samples] = []
        self._waiting_samples = 0
        self._touched = False
        self._start()

    @property
    def received_sec(self) -> float:
        """The duration of all audio given to `accept`."""
        return self._received / self._sample_rate

    def accept(self, data: bytes) -> list[Samples]:
        """The pieces that `data` completes, float32 (or int16) [n] at 16 kHz.

        Raises AudioError for invalid samples, which are dropped; the stream continues. Raises ContainerSent where the
        audio begins as a file does, until `discard` or `flush`.
        """
        self._check_is_no_file(data)
        taken = self._bytes + data if self._bytes else data
        whole = len(taken) - len(taken) % self._sample_bytes
        taken, self._bytes = taken[:whole], taken[whole:]
        samples: Samples
        if self._is_int16:
            samples = np.frombuffer(taken, "<i2")
        else:
            samples = check_waveform(pcm_to_float(taken, self._encoding), what="audio")
        self._received += len(samples)
        self._touched = self._touched or len(samples) > 0
        self._add(samples)
        pieces = []
        while self._waiting_samples >= _MIN_PIECE:
            pieces.append(self._take(min(self._waiting_samples, _MAX_PIECE)))
        return pieces

    @property
    def is_empty(self) -> bool:
        """Whether `flush` would return nothing."""
        return not self._touched

    def flush(self) -> Samples:
        """The remaining samples, if any; an incomplete sample is dropped.

        Later audio is resampled as a new recording.
        """
        self._add(np.zeros(0, np.int16 if self._is_int16 else np.float32), last=True)
        rest = self._take(self._waiting_samples)
        self._start()
        return rest

    def discard(self) -> None:
        """Drop the audio that has not become a piece yet."""
        self._start()

    def _check_is_no_file(self, data: bytes) -> None:
        """Looks at the first bytes, without keeping them from being heard: what tells a file apart comes with them."""
        if self._head is None:
            return
        self._head += data[: SNIFFED_BYTES - len(self._head)]
        if (kind := container_of(self._head)) is not None:
            raise ContainerSent(
                f"Expected samples ({self._encoding}, {self._sample_rate} Hz, mono, without a header), got {kind}",
                hint="decode it first, or send a whole file to /v1/audio/transcriptions"
                if kind != "a WAV file"
                else "send only what is behind its header, or the whole file to /v1/audio/transcriptions",
            )
        if len(self._head) == SNIFFED_BYTES:
            self._head = None

    def _start(self) -> None:
        self._head = b""
        self._bytes, self._waiting, self._waiting_samples, self._touched = b"", [], 0, False
        self._resampler = _resampler(self._sample_rate)

    def _add(self, samples: Samples, *, last: bool = False) -> None:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        self._waiting.append(samples)
        self._waiting_samples += len(samples)

    def _take(self, count: int) -> Samples:
        waiting: Samples = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting = [waiting[count:]] if count < len(waiting) else []
        self._waiting_samples -= count
        return waiting[:count]


def _resampler(sample_rate: int) -> Any:
    """A resampler to 16 kHz; None for audio at that rate."""
    if sample_rate == SAMPLE_RATE:
        return None
    import soxr

    return soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
