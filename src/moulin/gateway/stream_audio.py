"""Bytes of a live stream to samples: with or without a WAV header, one channel, all mixed, or each by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from moulin.arrays import Floats
from moulin.audio.live_wav import LiveWav, UnknownWavError
from moulin.audio.pcm import RawFormat, pcm_frames
from moulin.audio.sample_format import FormatGuard
from moulin.errors import AudioError
from moulin.gateway.live_audio import LiveAudio, Samples

_RIFF_BYTES = 12


class StreamAudio:
    """Takes a stream apart. A WAV header is believed rather than the client's words."""

    def __init__(self, raw: Callable[[], RawFormat], *, channels: int = 1) -> None:
        """`raw` gives the form of audio without a header, or raises an error for the client. `channels` is how many
        are heard by themselves; with 1 those of the audio are mixed."""
        self._raw, self._channels = raw, channels
        self._head: bytes | None = b""  # the first bytes, until it is known whether they are a WAV header
        self._wav: LiveWav | None = None
        self._form: RawFormat | None = None
        self._audios: list[LiveAudio] = []
        self._guard: FormatGuard | None = None
        self._doubts: list[str] = []
        self._part = b""  # of a frame of several channels

    def is_empty(self, channel: int = 0) -> bool:
        """Whether `flush` would return nothing."""
        return not self._head and (not self._audios or self._audios[channel].is_empty)

    def warnings(self) -> list[str]:
        """What the samples seem to be instead; complete at the end of the stream."""
        return [*self._doubts, *filter(None, [self._guard.rest() if self._guard is not None else None])]

    @property
    def received_sec(self) -> float:
        """The duration of all audio given to `accept`."""
        return self._audios[0].received_sec if self._audios else 0.0

    def accept(self, data: bytes) -> list[tuple[int, Samples]]:
        """The pieces that `data` completes: a channel from 0 and float32 [n] at 16 kHz. Raises ApiError 400,
        AudioError."""
        if self._head is not None:
            self._head += data
            if len(self._head) < _RIFF_BYTES:
                return []
            data, self._head = self._head, None
            if data[:4] in (b"RIFF", b"RF64", b"BW64") and data[8:12] == b"WAVE":
                self._wav = LiveWav()
        if self._wav is None:
            return list(self._pieces(self._raw(), data))
        try:
            found = list(self._wav.accept(data))
        except UnknownWavError as error:
            raise AudioError(f"Expected PCM, mu-law or A-law in a WAV file, got {error}") from None
        return [piece for form, part in found for piece in self._pieces(form, part)]

    def flush(self, channel: int = 0) -> Samples | None:
        """The remaining samples of a channel, if any; None where none have come. Raises as `accept`."""
        if self._head:
            data, self._head = self._head, None
            list(self._pieces(self._raw(), data))  # too few bytes for a whole piece
        return self._audios[channel].flush() if self._audios else None

    def _pieces(self, form: RawFormat, data: bytes) -> Iterator[tuple[int, Samples]]:
        if self._form is None:
            self._open(form)
        elif form != self._form:
            raise AudioError(f"Expected a stream of one format, got {self._form} and then {form}")
        if self._guard is not None and (doubt := self._guard.accept(data)) is not None:
            self._doubts.append(doubt)
        if form.channels == 1:
            parts = [data]
        else:
            frames = self._frames(form, data)
            columns = [frames.mean(axis=1)] if self._channels == 1 else list(frames.T)
            parts = [column.astype("<f4").tobytes() for column in columns]
        for channel, (audio, part) in enumerate(zip(self._audios, parts, strict=True)):
            for piece in audio.accept(part):
                yield channel, piece

    def _open(self, form: RawFormat) -> None:
        if self._channels not in (1, form.channels):
            raise AudioError(f"Expected {self._channels} channels, got a WAV header with {form.channels}")
        self._form = form
        self._guard = FormatGuard(form.encoding, form.sample_rate, form.channels)
        encoding = form.encoding if form.channels == 1 else "f32le"
        self._audios = [LiveAudio(encoding, form.sample_rate) for _ in range(self._channels)]

    def _frames(self, form: RawFormat, data: bytes) -> Floats:
        """Whole frames [n, channels]; the bytes of an incomplete one wait."""
        data = self._part + data
        whole = len(data) - len(data) % form.frame_bytes
        self._part = data[whole:]
        return pcm_frames(data[:whole], form)
