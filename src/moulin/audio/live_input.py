"""Audio that comes while it is spoken: standard input, a FIFO, any file that cannot be sought in.

WAV and headerless PCM are read as they come; other containers (MP3, Ogg, WebM, ...) go through FFmpeg (PyAV), which
decodes what it has. What FFmpeg can only read whole, such as an MP4 file with its index behind the audio, is read to
its end first; without PyAV so is every other container, for libsndfile.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.containers import SNIFFED_BYTES, container_of
from moulin.audio.decoded import check_rate, reason
from moulin.audio.faults import Faults
from moulin.audio.ffmpeg import CHOOSE_TRACK, Frames, how_to_open, kind_of, no_such_track, rank, timeline_of
from moulin.audio.live_wav import LiveWav, UnknownWavError
from moulin.audio.mono import check_channel
from moulin.audio.pcm import RawFormat, pcm_frames, scale_to_float
from moulin.audio.recording import Recording
from moulin.audio.sample_format import FormatGuard
from moulin.audio.selection import MIX, Selection
from moulin.audio.timeline import MAX_SILENCE_SEC, Skip
from moulin.audio.waveform import SAMPLE_RATE, check_waveform
from moulin.errors import AudioError, first_line

logger = logging.getLogger(__name__)

_READ_BYTES = 1 << 16
_HEADER_BYTES = 12
_CANCELLED = 0.1
"""The power of the channels' mean, as a share of the strongest channel's, below which they cancel each other."""

# Little, so that the first words do not wait for more of a live source than FFmpeg needs to know the codec.
_PROBE = {"probesize": "32768", "analyzeduration": "200000"}


class LiveInput:
    """An open file that is read while another program writes it."""

    def __init__(self, descriptor: int, name: str, raw: RawFormat | None = None, selection: Selection = MIX) -> None:
        """`raw` is the format of audio without a header; `name` is for messages. `selection` must be single."""
        self._descriptor, self._name, self._raw, self._selection = descriptor, name, raw, selection
        self._stopped, self._stopping = os.pipe()
        self._ended = False
        self._faults = Faults()
        self.fault: str | None = None
        """Why the input ended before its writer closed it, if it did; what came before was given."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was chosen or could not be decoded: complete at the end."""
        return self._faults.warnings

    def close(self) -> None:
        os.close(self._stopped)
        os.close(self._stopping)

    def stop(self) -> None:
        """End the input. May be called by a signal handler or another thread."""
        os.write(self._stopping, b".")

    def __iter__(self) -> Iterator[Floats]:
        """The audio as it comes: float32 [n], 16 kHz mono. Raises AudioError where it cannot be decoded."""
        if self._raw is not None:
            self._check_only_track()
            yield from _Mono.all(self._whole_frames(self._raw), self._channel)
            return
        head = self._beginning()
        if not head:
            if self._ended and self.fault is None and not self._is_stopped():
                raise AudioError(f"{self._name} is empty (0 bytes), expected audio")
            return
        if container_of(head) == "a WAV file" and head[:4] != b"RIFX":
            yield from self._wav(head)
        else:
            yield from self._container(head)

    @property
    def _channel(self) -> int | None:
        return self._selection.channel_number

    def _check_only_track(self) -> None:
        if self._selection.track_number not in (None, 1):
            raise AudioError(f"{self._name} is one track, expected track {self._selection.track_number}")

    def _beginning(self) -> bytes:
        """Enough bytes to know a WAV file, or all there are."""
        head = b""
        while len(head) < _HEADER_BYTES and (more := self._read()):
            head += more
        return head

    def _read(self, count: int = _READ_BYTES) -> bytes:
        """The bytes that have come, at least one; none at the end."""
        if self._ended:
            return b""
        try:
            ready, _, _ = select.select([self._descriptor, self._stopped], [], [])
            data = b"" if self._stopped in ready else os.read(self._descriptor, count)
        except OSError as error:
            self.fault = error.strerror or str(error)
            data = b""
        self._ended = not data
        return data

    def _is_stopped(self) -> bool:
        return bool(select.select([self._stopped], [], [], 0)[0])

    def _whole_frames(self, format: RawFormat) -> Iterator[tuple[RawFormat, bytes]]:
        rest, guard = b"", FormatGuard(format.encoding, format.sample_rate, format.channels)
        while data := self._read():
            self._doubt(guard.accept(data))
            rest += data
            whole = len(rest) - len(rest) % format.frame_bytes
            if whole:
                yield format, rest[:whole]
                rest = rest[whole:]
        self._doubt(guard.rest())

    def _doubt(self, doubt: str | None) -> None:
        if doubt is not None:
            self._faults.add(doubt)

    def _wav(self, head: bytes) -> Iterator[Floats]:
        self._check_only_track()
        wav, seen = LiveWav(), head

        def pieces() -> Iterator[tuple[RawFormat, bytes]]:
            nonlocal seen
            yield from wav.accept(head)
            while data := self._read():
                if wav.format is None:
                    seen += data
                yield from wav.accept(data)

        def guarded() -> Iterator[tuple[RawFormat, bytes]]:
            guard: FormatGuard | None = None
            for format, data in pieces():
                guard = guard or FormatGuard(format.encoding, format.sample_rate, format.channels)
                self._doubt(guard.accept(data))
                yield format, data
            if guard is not None:
                self._doubt(guard.rest())

        try:
            yield from _Mono.all(guarded(), self._channel)
        except UnknownWavError:  # the header alone has been read
            yield from self._container(seen)
            return
        if wav.format is None:
            raise AudioError(f"{self._name} ended within its WAV header")
        if wav.missing_sec and not self._is_stopped():
            self._faults.missing(wav.missing_sec)

    def _container(self, head: bytes) -> Iterator[Floats]:
        pipe = _Pipe(self, head)
        try:
            import av
        except ImportError:
            yield from self._whole(pipe)
            return
        decoded = False
        try:
            how = how_to_open(head)
            how["options"] = {**how.get("options", {}), **_PROBE}
            container: Any = av.open(pipe, mode="r", buffer_size=4096, **how)
            with container:
                frames = Frames(self._name, container, self._track(container), lambda: pipe.count)
                for samples in _decoded(frames, self._channel):
                    if not decoded:
                        pipe.forget()
                    decoded = True
                    yield samples
            if not decoded:
                raise frames.damage or ValueError("nothing was decoded")
            if frames.damage is not None:
                if self._ended:
                    self._faults.damaged(reason(frames.damage))
                else:
                    self.fault = reason(frames.damage)
            elif frames.skipped_bytes:
                self._faults.damaged(f"{frames.skipped_bytes:,} bytes are no frames")
        except AudioError:
            raise
        except Exception as error:
            if decoded:
                self.fault = self.fault or first_line(error)
                return
            logger.debug("%s cannot be decoded as it comes", self._name, exc_info=error)
            yield from self._whole(pipe)

    def _track(self, container: Any) -> Any:
        """The audio track that was chosen, or the first by `rank`. Raises AudioError for a number that no track has,
        ValueError where none can be decoded."""
        tracks, number = list(container.streams.audio), self._selection.track_number
        if number is not None and number > len(tracks):
            raise no_such_track(self._name, len(tracks), number)
        known = [track for track in tracks if track.codec_context is not None]
        if number is not None:
            known = [track for track in known if track is tracks[number - 1]]
        if not known:
            raise ValueError("there is no audio, or of a codec that is not known")
        chosen = min(known, key=rank)
        if len(tracks) > 1 and number is None:
            heard = tracks.index(chosen) + 1
            self._faults.add(f"there are {len(tracks)} audio tracks, of which number {heard} is heard", CHOOSE_TRACK)
        return chosen

    def _whole(self, pipe: _Pipe) -> Iterator[Floats]:
        """The audio of a container that cannot be decoded as it comes, when all of it has come."""
        kind = container_of(bytes(pipe.seen[:SNIFFED_BYTES]))
        if kind is None:
            raise AudioError(
                f"{self._name} is neither WAV nor another container that can be decoded as it comes",
                hint="headerless samples need --raw, for example --raw s16le:16000; name a file by its path",
            )
        while pipe.read(_READ_BYTES):
            pass
        recording = Recording(bytes(pipe.seen), self._selection, name=self._name)
        for block in recording:
            yield np.zeros(0, np.float32) if isinstance(block, Skip) else block
        for warning in recording.warnings:
            self._faults.add(warning)


def _decoded(frames: Frames, channel: int | None) -> Iterator[Floats]:
    """16 kHz mono of a track, with silence where its time stamps have a gap of up to `MAX_SILENCE_SEC`; a longer one
    may as well be another clock. Damaged packets are passed over."""
    resampler: _Resampler | None = None
    timeline = timeline_of(frames.container, (frames.container.start_time or 0) / 1_000_000)
    for frame in frames:
        start_sec = None if frame.pts is None else float(frame.pts * frames.stream.time_base)
        gap_sec = timeline.gap_before(start_sec, frame.samples / frame.sample_rate)
        if resampler is None or not resampler.takes(frame):
            if resampler is not None:
                yield from resampler.taken(None)
            delay_sec = 0.0 if resampler is not None or gap_sec else frames.delay_sec
            resampler = _Resampler(frame, delay_sec, channel)
        if 0 < gap_sec <= MAX_SILENCE_SEC:
            yield np.zeros(round(gap_sec * SAMPLE_RATE), np.float32)
        yield from resampler.taken(frame)
    if resampler is not None:
        yield from resampler.taken(None)


class _Resampler:
    """Decoded frames of one kind to 16 kHz mono."""

    def __init__(self, frame: Any, delay_sec: float, channel: int | None) -> None:
        """`frame` is the first one; `delay_sec` is left out at the beginning."""
        import av

        self._channel = channel
        self._kind, self._left = kind_of(frame), round(delay_sec * SAMPLE_RATE)
        self._resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)

    def takes(self, frame: Any) -> bool:
        return kind_of(frame) == self._kind

    def taken(self, frame: Any | None) -> Iterator[Floats]:
        """What is ready after `frame`; after None, which is the last, all the rest."""
        if frame is not None:
            frame.pts = None  # of time stamps with gaps the resampler would make silence itself
        for resampled in self._resampler.resample(frame):
            mixed = _mixed(scale_to_float(resampled.to_ndarray().T), self._channel)
            skipped = min(self._left, len(mixed))
            self._left -= skipped
            yield mixed[skipped:]


class _Pipe:
    """A file for PyAV that cannot seek: bytes that have been read already, and then those that come."""

    def __init__(self, source: LiveInput, head: bytes) -> None:
        self._source, self._head = source, head
        self.count = 0
        """Bytes that were read."""
        self.seen = bytearray()
        """All that was read, until `forget`."""
        self._remembers = True

    def read(self, count: int) -> bytes:
        if self._head:
            data, self._head = self._head[:count], self._head[count:]
        else:
            data = self._source._read(count)
        self.count += len(data)
        if self._remembers:
            self.seen += data
        return data

    def forget(self) -> None:
        self._remembers, self.seen = False, bytearray()


class _Mono:
    """One format's samples to 16 kHz, mono."""

    def __init__(self, format: RawFormat, channel: int | None) -> None:
        check_rate(format.sample_rate, "the audio")
        self.format, self._channel = format, channel
        self._resampler: Any = None
        if format.sample_rate != SAMPLE_RATE:
            import soxr

            self._resampler = soxr.ResampleStream(format.sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    @classmethod
    def all(cls, pieces: Iterator[tuple[RawFormat, bytes]], channel: int | None) -> Iterator[Floats]:
        """The samples of `pieces`, each of whole frames in a format of its own, mixed or of one channel."""
        mono: _Mono | None = None
        for format, data in pieces:
            if mono is None or mono.format != format:
                if mono is not None:
                    yield mono.rest()
                mono = cls(format, channel)
            yield mono.samples(data)
        if mono is not None:
            yield mono.rest()

    def samples(self, data: bytes) -> Floats:
        mixed = _mixed(pcm_frames(data, self.format), self._channel)
        return mixed if self._resampler is None else self._resampler.resample_chunk(mixed)

    def rest(self) -> Floats:
        """What the resampler still holds."""
        nothing = np.zeros(0, np.float32)
        return nothing if self._resampler is None else self._resampler.resample_chunk(nothing, last=True)


def _mixed(channels: NDArray[np.float32], channel: int | None) -> Floats:
    """One channel of [n, C], from 1; for None the mean, or the strongest one where they cancel each other.

    Raises AudioError for NaN and for a channel that is not there.
    """
    if channel is not None:
        check_channel("the audio", channels.shape[1], channel)
        channels = channels[:, channel - 1 : channel]
    if channels.shape[1] == 1:
        return check_waveform(channels[:, 0], what="the audio")
    with np.errstate(over="ignore", invalid="ignore"):
        mean = channels.mean(axis=1)
        powers = np.einsum("nc,nc->c", channels, channels)
        if len(mean) and float(mean @ mean) < _CANCELLED * float(powers.max()) / channels.shape[1]:
            mean = channels[:, powers.argmax()]
    return check_waveform(np.ascontiguousarray(mean), what="the audio")
