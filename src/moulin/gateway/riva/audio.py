"""Audio of Riva's clients: of streams with or without a WAV header, and of recordings with or without a container."""

from __future__ import annotations

import struct

from moulin.audio.containers import SNIFFED_BYTES, container_of
from moulin.audio.live_wav import LiveWav, UnknownWavError
from moulin.audio.pcm import RawFormat, pcm_frames
from moulin.errors import AudioError
from moulin.gateway.live_audio import ContainerSent, LiveAudio, Samples
from moulin.gateway.riva.wish import Wish

_RIFF_BYTES = 12
_WAV_TAGS = {"s16le": 1, "alaw": 6, "mulaw": 7}


def wav_header(audio: bytes, wish: Wish) -> bytes:
    """What makes a WAV file of a recording without a header; empty where it has one. Raises ApiError 400."""
    if container_of(audio[:SNIFFED_BYTES]) is not None:
        return b""
    raw = wish.raw
    frame = raw.frame_bytes
    fields = (_WAV_TAGS[raw.encoding], raw.channels, raw.sample_rate, raw.sample_rate * frame, frame)
    chunk = struct.pack("<4sIHHIIHH", b"fmt ", 16, *fields, 8 * frame // raw.channels)
    data = struct.pack("<4sI", b"data", len(audio))
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunk) + len(data) + len(audio), b"WAVE") + chunk + data


class StreamAudio:
    """A stream's bytes to samples at 16 kHz. A WAV header is believed rather than the configuration; channels are
    mixed."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._head: bytes | None = b""  # the first bytes, until it is known whether they are a WAV header
        self._wav: LiveWav | None = None
        self._format: RawFormat | None = None
        self._audio: LiveAudio | None = None
        self._part = b""  # of a frame of several channels

    @property
    def is_empty(self) -> bool:
        """Whether `flush` would return nothing."""
        return not self._head and (self._audio is None or self._audio.is_empty)

    def accept(self, data: bytes) -> list[Samples]:
        """The pieces, float32 [n], that `data` completes. Raises ApiError 400, AudioError."""
        if self._head is not None:
            self._head += data
            if len(self._head) < _RIFF_BYTES:
                return []
            data, self._head = self._head, None
            if data[:4] in (b"RIFF", b"RF64", b"BW64") and data[8:12] == b"WAVE":
                self._wav = LiveWav()
        if self._wav is None:
            return self._samples(self._wish.raw, data)
        try:
            found = list(self._wav.accept(data))
        except UnknownWavError as error:
            raise AudioError(f"Expected PCM, mu-law or A-law in a WAV file, got {error}") from None
        return [piece for form, part in found for piece in self._samples(form, part)]

    def flush(self) -> Samples | None:
        """The remaining samples, if any; None where none have come."""
        if self._head:
            data, self._head = self._head, None
            self._samples(self._wish.raw, data)
        return None if self._audio is None else self._audio.flush()

    def _samples(self, form: RawFormat, data: bytes) -> list[Samples]:
        if self._audio is None:
            self._format = form
            self._audio = LiveAudio(form.encoding if form.channels == 1 else "f32le", form.sample_rate)
        elif form != self._format:
            raise AudioError(f"Expected a stream of one format, got {self._format} and then {form}")
        try:
            return self._audio.accept(data if form.channels == 1 else self._mixed(form, data))
        except ContainerSent as error:
            raise AudioError(error.message, hint="send a recording to Recognize, or LINEAR_PCM") from None

    def _mixed(self, form: RawFormat, data: bytes) -> bytes:
        """The mean of the channels, f32le."""
        data = self._part + data
        whole = len(data) - len(data) % form.frame_bytes
        self._part = data[whole:]
        return bytes(pcm_frames(data[:whole], form).mean(axis=1).astype("<f4").tobytes())
