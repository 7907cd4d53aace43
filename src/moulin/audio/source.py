"""Recordings named on the command line: files, folders of files, standard input, raw PCM."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray

from moulin.audio.decode import audio_blocks, declared_duration_sec, decode_pcm, read_audio
from moulin.audio.pcm import PcmEncoding
from moulin.errors import AudioError, OptionsError

# Suffixes of the files taken from a folder; a file named explicitly is read whatever its suffix.
AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".wma", ".amr", ".aiff", ".aif", ".au"),
    *(".caf", ".w64", ".sph", ".mp4", ".webm", ".mka", ".mkv"),
)
_RAW_FORMAT = re.compile(r"(?P<encoding>\w+):(?P<rate>\d+)(?::(?P<channels>\d+))?")


@dataclass(frozen=True, slots=True)
class RawFormat:
    """The encoding, rate in Hz and channel count of samples without a header."""

    encoding: PcmEncoding
    sample_rate: int
    channels: int = 1


@dataclass(frozen=True, slots=True)
class AudioSource:
    """One recording; `name` is its path as given on the command line, or `-` for standard input."""

    name: str
    raw: RawFormat | None = None

    def read(self) -> NDArray[np.float32]:
        """The waveform: float32 [N], 16 kHz, mono. Raises AudioError."""
        if self.name == "-":
            data = sys.stdin.buffer.read()
            return self._decode_raw(data, self.raw) if self.raw else read_audio(data)
        if self.raw is None:
            return read_audio(self.name)
        try:
            return self._decode_raw(Path(self.name).read_bytes(), self.raw)
        except OSError as error:
            raise AudioError(f"{self.name} cannot be read: {error.strerror or error}") from error

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """`read` in blocks, as they are decoded; headerless audio is one block. Raises AudioError while iterating."""
        if self.raw is not None:
            yield self.read()
        else:
            yield from audio_blocks(sys.stdin.buffer.read() if self.name == "-" else self.name)

    def declared_sec(self) -> float | None:
        """The duration in the file's header in seconds; None where there is none to read without decoding."""
        return None if self.raw or self.name == "-" else declared_duration_sec(self.name)

    @staticmethod
    def _decode_raw(data: bytes, raw: RawFormat) -> NDArray[np.float32]:
        return decode_pcm(data, sample_rate=raw.sample_rate, channels=raw.channels, encoding=raw.encoding)


def find_sources(names: Sequence[str], raw: RawFormat | None = None) -> list[AudioSource]:
    """The recordings that `names` stand for; a folder's are sorted by path.

    Raises AudioError for a folder without audio files.
    """
    sources: list[AudioSource] = []
    for name in names:
        if name != "-" and Path(name).is_dir():
            found = sorted(p for p in Path(name).rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file())
            if not found:
                raise AudioError(f"There is no audio in the folder {name}", hint="name the files themselves")
            sources.extend(AudioSource(str(path), raw) for path in found)
        else:
            sources.append(AudioSource(name, raw))
    return sources


def parse_raw_format(text: str) -> RawFormat:
    """ENCODING:RATE or ENCODING:RATE:CHANNELS, such as s16le:8000. Raises OptionsError."""
    match = _RAW_FORMAT.fullmatch(text)
    if match is None or match["encoding"] not in get_args(PcmEncoding):
        raise OptionsError(
            f"Expected raw audio as ENCODING:RATE or ENCODING:RATE:CHANNELS, got {text!r}",
            hint=f"for example s16le:8000; the encodings are {', '.join(get_args(PcmEncoding))}",
        )
    return RawFormat(cast(PcmEncoding, match["encoding"]), int(match["rate"]), int(match["channels"] or 1))
