"""Recordings named on the command line: files, folders of files, standard input, raw PCM."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast, get_args

import numpy as np
from numpy.typing import NDArray

from moulin.audio.decode import declared_duration_sec
from moulin.audio.pcm import PcmEncoding
from moulin.audio.pcm import RawFormat as RawFormat
from moulin.audio.recording import Recording, opened_recordings
from moulin.audio.selection import MIX, Selection
from moulin.audio.source_file import Source, open_source
from moulin.audio.timeline import Skip
from moulin.audio.wav_header import wav_header
from moulin.errors import AudioError, OptionsError

AUDIO_SUFFIXES = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".spx", ".mp3", ".mp2", ".mpga", ".m4a", ".m4b", ".m4r"),
    *(".aac", ".wma", ".amr", ".awb", ".3gp", ".3gpp", ".3g2", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf"),
    *(".w64", ".rf64", ".sph", ".voc", ".mp4", ".m4v", ".mov", ".avi", ".wmv", ".asf", ".webm", ".weba", ".mka"),
    *(".mkv", ".flv", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".ac3", ".eac3", ".ec3", ".wv", ".tta", ".ape", ".bwf"),
    *(".mxf", ".dts", ".oma", ".mpc", ".tak", ".dsf", ".wtv", ".vob", ".ogv", ".ogm", ".f4v", ".f4a", ".rm", ".rmvb"),
    *(".ra", ".qt", ".m2t", ".m2a", ".mpa", ".isma", ".ismv", ".nist"),
)
"""Suffixes of the files taken from a folder; a file named explicitly is read whatever its suffix."""

_TRANSPORT_STREAM_SYNC = b"G"
_RAW_FORMAT = re.compile(r"(?P<encoding>\w+):(?P<rate>\d+)(?::(?P<channels>\d+))?")


@dataclass(frozen=True, slots=True)
class AudioSource:
    """One recording; `name` is its path as given on the command line, or `-` for standard input."""

    name: str
    raw: RawFormat | None = None
    selection: Selection = MIX

    def read(self, on_warning: Callable[[str], None] = lambda _sentence: None) -> NDArray[np.float32]:
        """The waveform: float32 [N], 16 kHz, mono, without gaps of more than 60 s. The selection must be single.

        What is missing or was chosen goes to `on_warning`. Raises AudioError.
        """
        ((_, recording),) = self.recordings()
        blocks = [block for block in recording if not isinstance(block, Skip)]
        for sentence in recording.warnings:
            on_warning(sentence)
        return np.concatenate([np.zeros(0, np.float32), *blocks])

    def recordings(self) -> list[tuple[Selection, Recording]]:
        """What is transcribed by itself: one recording, or one for each channel or track. Raises AudioError."""
        if self.raw is not None:
            return self._raw_recordings(self.raw)
        source: Source = sys.stdin.buffer.read() if self.name == "-" else self.name
        return opened_recordings(source, self.selection)

    @contextmanager
    def opened(self) -> Iterator[tuple[BinaryIO, int]]:
        """The recording as a file and its size, undecoded; raw samples behind a WAV header. Raises AudioError."""
        if self.raw is None:
            _, file = open_source(sys.stdin.buffer.read() if self.name == "-" else self.name)
            with file:
                yield file, file.seek(0, io.SEEK_END)
            return
        data = self._raw_data()
        header = wav_header(self.raw, len(data))
        yield io.BytesIO(header + data), len(header) + len(data)

    def declared_sec(self) -> float | None:
        """The duration in the file's header in seconds; None where there is none to read without decoding."""
        return None if self.raw or self.name == "-" else declared_duration_sec(self.name)

    def _raw_recordings(self, raw: RawFormat) -> list[tuple[Selection, Recording]]:
        data = self._raw_data()
        singles = [self.selection]
        if self.selection.channels == "each":
            singles = [Selection(str(channel + 1)) for channel in range(raw.channels)]
        return [(single, Recording.of_pcm(data, raw, single, name=self.name)) for single in singles]

    def _raw_data(self) -> bytes:
        try:
            return sys.stdin.buffer.read() if self.name == "-" else Path(self.name).read_bytes()
        except OSError as error:
            raise AudioError(f"{self.name} cannot be read: {error.strerror or error}") from error


OnSkipped = Callable[[str, Sequence[Path]], None]
"""A callback, called with a folder and the files in it that are not taken for audio."""


def find_sources(
    names: Sequence[str],
    raw: RawFormat | None = None,
    selection: Selection = MIX,
    *,
    on_skipped: OnSkipped = lambda _folder, _files: None,
) -> list[AudioSource]:
    """The recordings that `names` stand for; a folder's are sorted by path.

    Hidden files and folders are passed over: `._a.wav` is what macOS puts beside `a.wav` on a foreign disk.
    Raises AudioError for a folder without audio files.
    """
    sources: list[AudioSource] = []
    for name in names:
        if name != "-" and Path(name).is_dir():
            files = sorted(path for path in Path(name).rglob("*") if _is_file(path) and not _is_hidden(path, name))
            found = [path for path in files if is_audio(path)]
            if not found:
                raise AudioError(f"There is no audio in the folder {name}", hint="name the files themselves")
            skipped = [path for path in files if path not in set(found)]
            if skipped:
                on_skipped(name, skipped)
            sources.extend(AudioSource(str(path), raw, selection) for path in found)
        else:
            sources.append(AudioSource(name, raw, selection))
    return sources


def _is_file(path: Path) -> bool:
    """Whether it is a file, or a link to nothing, of which reading says so. FIFOs and devices never end."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_hidden(path: Path, folder: str) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def is_audio(path: Path) -> bool:
    """By its suffix; `.ts` is also that of TypeScript."""
    suffix = path.suffix.lower()
    if suffix != ".ts":
        return suffix in AUDIO_SUFFIXES
    try:
        with path.open("rb") as file:
            return file.read(1) == _TRANSPORT_STREAM_SYNC
    except OSError:
        return True  # reading it will report the fault


def parse_raw_format(text: str) -> RawFormat:
    """ENCODING:RATE or ENCODING:RATE:CHANNELS, such as s16le:8000. Raises OptionsError."""
    match = _RAW_FORMAT.fullmatch(text)
    if match is None or match["encoding"] not in get_args(PcmEncoding):
        raise OptionsError(
            f"Expected raw audio as ENCODING:RATE or ENCODING:RATE:CHANNELS, got {text!r}",
            hint=f"for example s16le:8000; the encodings are {', '.join(get_args(PcmEncoding))}",
        )
    return RawFormat(cast(PcmEncoding, match["encoding"]), int(match["rate"]), int(match["channels"] or 1))
