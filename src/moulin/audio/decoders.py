"""libsndfile and FFmpeg as one decoder: each file by the one that suits it, else by the other."""

from __future__ import annotations

import io
from collections.abc import Iterator

from moulin.audio.chunks import WAV, chunks, is_wav
from moulin.audio.decoded import CannotDecodeError, Gap, PyAvMissingError, Sound, StoppedEarlyError
from moulin.audio.faults import Faults
from moulin.audio.ffmpeg import ffmpeg_sounds
from moulin.audio.libsndfile import soundfile_sounds
from moulin.audio.part import BinaryFile, read_at
from moulin.audio.parts import is_mpeg_audio
from moulin.audio.patience import Patience
from moulin.errors import AudioError
from moulin.extras import install_hint


class Decoder:
    """The two libraries, in the order that suits a file, as one."""

    def __init__(self, name: str, sample_rate: int, track: int | None, faults: Faults, patience: Patience) -> None:
        """`patience` ends FFmpeg's work; who takes sounds renews it."""
        self._name, self._rate, self._track, self._faults = name, sample_rate, track, faults
        self._patience = patience

    def sounds(self, file: BinaryFile, *, is_first: bool) -> Iterator[Sound | Gap]:
        """Raises AudioError."""
        said: dict[str, CannotDecodeError | PyAvMissingError] = {}
        for library in ("FFmpeg", "libsndfile") if _suits_ffmpeg(file, self._rate) else ("libsndfile", "FFmpeg"):
            try:
                if library == "FFmpeg":
                    yield from self._by_ffmpeg(file, is_first)
                else:
                    yield from self._by_libsndfile(file, is_first)
                return
            except (CannotDecodeError, PyAvMissingError) as error:
                said[library] = error
        raise self._refusal(said["libsndfile"], said["FFmpeg"])

    def _by_ffmpeg(self, file: BinaryFile, is_first: bool) -> Iterator[Sound | Gap]:
        return ffmpeg_sounds(
            self._name,
            file,
            track=self._track,
            is_first=is_first,
            faults=self._faults,
            patience=self._patience,
        )

    def _by_libsndfile(self, file: BinaryFile, is_first: bool) -> Iterator[Sound | Gap]:
        if self._track not in (None, 1):
            raise CannotDecodeError(f"There is no track {self._track}")
        done_sec = 0.0
        try:
            for sound in soundfile_sounds(self._name, file, self._faults):
                done_sec += len(sound.samples) / sound.rate
                yield sound
        except StoppedEarlyError as error:
            rest_sec = 0.0
            for rest in self._from(done_sec, file, is_first):
                rest_sec += rest.seconds
                yield rest
            treatment = "the rest was decoded" if rest_sec else f"only its first {done_sec:.3f} s were decoded"
            self._faults.damaged(str(error), treatment)

    def _from(self, begin_sec: float, file: BinaryFile, is_first: bool) -> Iterator[Sound | Gap]:
        """What FFmpeg decodes from `begin_sec` on; nothing where it cannot."""
        left_sec = begin_sec
        try:
            for sound in self._by_ffmpeg(file, is_first):
                self._patience.renew()
                if isinstance(sound, Gap):
                    if sound.seconds > left_sec:
                        yield Gap(sound.seconds - left_sec)
                    left_sec = max(left_sec - sound.seconds, 0.0)
                    continue
                skipped = min(round(left_sec * sound.rate), len(sound.samples))
                left_sec -= skipped / sound.rate
                if skipped < len(sound.samples):
                    yield Sound(sound.rate, sound.samples[skipped:])
        except (CannotDecodeError, PyAvMissingError):
            return

    def _refusal(self, libsndfile: Exception, ffmpeg: Exception) -> AudioError:
        if isinstance(ffmpeg, PyAvMissingError):
            refusal = AudioError(
                f"{self._name} cannot be decoded: libsndfile says '{libsndfile}'",
                hint=f"for M4A, AAC, WebM, WMA and video files: {install_hint('media')}",
            )
        else:
            refusal = AudioError(
                f"{self._name} cannot be decoded as audio: libsndfile says '{libsndfile}', FFmpeg says '{ffmpeg}'"
            )
        refusal.__cause__ = ffmpeg
        return refusal


_MP3_IN_WAV = 0x55
"""WAVE_FORMAT_MPEGLAYER3 (RFC 2361)."""

_THREE_OGG_PAGES = 3 * (27 + 255 + 255 * 255)
"""The most bytes of so many pages (RFC 3533, section 6)."""


def _suits_ffmpeg(file: BinaryFile, sample_rate: int) -> bool:
    """Whether FFmpeg decodes the file in less time, or better: MP3, of which libsndfile leaves the encoder's delay in a
    WAV file, FLAC that is resampled, and Ogg, in which libsndfile passes over pauses."""
    file.seek(0)
    head = file.read(64) or b""
    if is_wav(head):
        return _wav_format(file) == _MP3_IN_WAV
    if head.startswith(b"fLaC"):
        return int.from_bytes(head[18:21], "big") >> 4 > sample_rate
    if head.startswith(b"OggS"):
        return not _is_one_page_of_vorbis(file)
    return head.startswith(b"ID3") or is_mpeg_audio(head)


def _wav_format(file: BinaryFile) -> int:
    """The number of the sample format in a WAV file's header; 0 without one."""
    found = (chunk for chunk in chunks(file, WAV, 0, file.seek(0, io.SEEK_END)) if chunk.name == b"fmt ")
    format = next(found, None)
    return 0 if format is None else int.from_bytes(read_at(file, format.content, 2), "little")


def _is_one_page_of_vorbis(file: BinaryFile) -> bool:
    """Whether the audio is one page, which FFmpeg gives a block late, and with more samples than there are."""
    file.seek(0)
    data = file.read(_THREE_OGG_PAGES) or b""
    pages = data.count(b"OggS\0")  # of the kind of codec, of its tables, of audio
    return b"\1vorbis" in data[:64] and pages <= 3 and len(data) < _THREE_OGG_PAGES
