"""A WAV file that is still being written, or comes through a pipe: bytes in, samples out, without sockets or files.

Programs that write to a pipe do not know how long the audio will be: 0, 0xFFFFFFFF or another impossible size means
"until the end". Where more follows behind the declared size, it is another chunk (skipped), another WAV file, or audio
that the writer did not count.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from moulin.audio.pcm import PcmEncoding, RawFormat
from moulin.errors import AudioError

_ENDLESS = 0x7FFF0000
"""Declared sizes from here on are those of programs that do not know."""

_UNCOUNTED = 2**62

_PCM: dict[int, PcmEncoding] = {1: "u8", 2: "s16le", 3: "s24le", 4: "s32le"}
_FLOATS: dict[int, PcmEncoding] = {4: "f32le", 8: "f64le"}
_TAG_PCM, _TAG_FLOAT, _TAG_ALAW, _TAG_MULAW, _TAG_EXTENSIBLE = 1, 3, 6, 7, 0xFFFE


class UnknownWavError(Exception):
    """A WAV file in a compressed or unusual format, which FFmpeg may know; str() says which."""


class LiveWav:
    """Takes a WAV file apart as it comes."""

    def __init__(self) -> None:
        self.format: RawFormat | None = None
        """Known once the header has come."""
        self._bytes = bytearray()
        self._skip = 0
        self._left: int | None = None  # bytes of the data chunk; None outside of it
        self._counted: int | None = None  # the size of the data by a chunk ds64
        self._padding = 0  # bytes behind the data chunk, to an even number
        self._behind = False  # the data chunk has ended

    def accept(self, data: bytes) -> Iterator[tuple[RawFormat, bytes]]:
        """The audio in `data`, in pieces of whole frames.

        Raises AudioError for a header that makes no sense, UnknownWavError for a format that is not PCM.
        """
        self._bytes += data
        while piece := self._next():
            if piece is not _NO_AUDIO:
                yield piece

    @property
    def missing_sec(self) -> float:
        """Audio that the header declares and that has not come yet; 0 where it declares no length."""
        if self.format is None or self._left is None or self._left > _UNCOUNTED // 2:
            return 0.0
        return self._left / self.format.frame_bytes / self.format.sample_rate

    def _next(self) -> tuple[RawFormat, bytes] | None:
        """What the next bytes are; None where more are needed."""
        if self._skip:
            count = min(self._skip, len(self._bytes))
            del self._bytes[:count]
            self._skip -= count
            return _NO_AUDIO if count else None
        if self._left is not None:
            return self._audio(self._left)
        if len(self._bytes) < 8 or (self._is_riff and len(self._bytes) < 12):
            return None
        if self._is_riff and self._bytes[8:12] == b"WAVE":
            self.format, self._behind, self._counted = None, False, None
            del self._bytes[:12]
            return _NO_AUDIO
        return self._chunk()

    @property
    def _is_riff(self) -> bool:
        return bytes(self._bytes[:4]) in (b"RIFF", b"RF64", b"BW64")

    def _audio(self, left: int) -> tuple[RawFormat, bytes] | None:
        assert self.format is not None
        count = min(len(self._bytes), left)
        count -= count % self.format.frame_bytes
        if left < self.format.frame_bytes:
            self._skip, self._left, self._behind = left + self._padding, None, True
            return _NO_AUDIO
        if not count:
            return None
        taken = bytes(self._bytes[:count])
        del self._bytes[:count]
        self._left = left - count
        return self.format, taken

    def _chunk(self) -> tuple[RawFormat, bytes] | None:
        name, size = bytes(self._bytes[:4]), int.from_bytes(self._bytes[4:8], "little")
        if self._behind and not (_is_name(name) and size < _ENDLESS):
            self._left, self._padding = _UNCOUNTED, 0  # audio that the writer did not count
            return _NO_AUDIO
        if name == b"data":
            if self.format is None:
                raise AudioError("The WAV header has no format (no chunk 'fmt ' before the data)")
            known = self._counted if self._counted is not None and size == 0xFFFFFFFF else size
            endless = known == 0 or (known >= _ENDLESS and self._counted is None)
            self._left = _UNCOUNTED if endless else known
            self._padding = 0 if endless else known % 2
            del self._bytes[:8]
            return _NO_AUDIO
        if name in (b"fmt ", b"ds64"):
            if size > 4096:
                raise AudioError(f"The WAV header makes no sense: its chunk {name.decode()!r} has {size} bytes")
            if len(self._bytes) < 8 + size:
                return None
            if name == b"fmt ":
                self.format = _format(bytes(self._bytes[8 : 8 + size]))
            elif size >= 16:
                self._counted = int.from_bytes(self._bytes[16:24], "little") or None
        elif not _is_name(name):
            raise AudioError(f"The WAV header makes no sense: expected the name of a chunk, got {name!r}")
        del self._bytes[:8]
        self._skip = size + size % 2
        return _NO_AUDIO


_NO_AUDIO: tuple[RawFormat, bytes] = (RawFormat("s16le", 0, 1), b"")


def _is_name(name: bytes) -> bool:
    return all(0x20 <= byte < 0x7F for byte in name)


def _format(chunk: bytes) -> RawFormat:
    if len(chunk) < 16:
        raise AudioError(f"The WAV header makes no sense: expected a format of at least 16 bytes, got {len(chunk)}")
    tag, channels, rate, _, frame_bytes, _ = struct.unpack_from("<HHIIHH", chunk)
    if tag == _TAG_EXTENSIBLE and len(chunk) >= 26:
        tag = int.from_bytes(chunk[24:26], "little")
    if channels < 1 or frame_bytes % channels or not rate:
        raise AudioError(
            f"The WAV header makes no sense: {channels} channels at {rate} Hz in frames of {frame_bytes} bytes"
        )
    width = frame_bytes // channels
    if tag == _TAG_PCM and width in _PCM:
        return RawFormat(_PCM[width], rate, channels)
    if tag == _TAG_FLOAT and width in _FLOATS:
        return RawFormat(_FLOATS[width], rate, channels)
    if tag in (_TAG_ALAW, _TAG_MULAW) and width == 1:
        return RawFormat("alaw" if tag == _TAG_ALAW else "mulaw", rate, channels)
    raise UnknownWavError(f"format {tag} with {width} bytes a sample")
