"""Decoding by libsndfile (soundfile): WAV, FLAC, AIFF, OGG, MP3 and a dozen more."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

from moulin.audio.decoded import CannotDecodeError, Sound, StoppedEarlyError, closing, reason, refusal
from moulin.audio.parts import BinaryFile

logger = logging.getLogger(__name__)

# Small, because a truncated FLAC loses the whole block in which libsndfile meets the truncation.
_BLOCK_FRAMES = 4096

# A file that declares no samples but is larger than any header was never given its length by its writer.
_MAX_HEADER_BYTES = 4096

_UNKNOWN_FRAMES = 1 << 40
"""libsndfile gives 2**63 - 1 where a header has no length."""


def soundfile_sounds(name: str, file: BinaryFile) -> Iterator[Sound]:
    """Decode `file` from its beginning.

    Raises CannotDecodeError when not even the first block can be decoded, and StoppedEarlyError where fewer frames come
    than the header declares; other exceptions after the first block pass through.
    """
    file.seek(0)
    try:
        import soundfile

        # A descriptor, not the file object: soundfile would take `speech.raw` for headerless PCM because of its name.
        handle = file.fileno() if isinstance(file, io.FileIO) else file
        sound = soundfile.SoundFile(handle, closefd=False)
    except Exception as error:
        raise refusal(name, error) from error
    # soundfile seeks to the current position after every read of a seekable file. An MP3 decoder loses its bit
    # reservoir with each seek: read in blocks, a valid file would turn into noise.
    sound.seekable = lambda: False
    with closing(name, sound):
        if sound.frames == 0 and file.seek(0, io.SEEK_END) > _MAX_HEADER_BYTES:
            raise CannotDecodeError("The header declares no samples")
        yield from _blocks(name, sound, soundfile.LibsndfileError)


def _blocks(name: str, sound: Any, librarys_error: type[Exception]) -> Iterator[Sound]:
    done = 0
    while True:
        try:
            block = sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
        except Exception as error:
            if done == 0:
                raise refusal(name, error) from error
            if not isinstance(error, librarys_error):
                raise
            raise StoppedEarlyError(reason(error)) from error
        if len(block) == 0:
            break
        done += len(block)
        yield Sound(sound.samplerate, block)
    if done < sound.frames < _UNKNOWN_FRAMES:
        raise StoppedEarlyError(
            f"{done / sound.samplerate:.3f} s of a declared {sound.frames / sound.samplerate:.3f} s are there"
        )
