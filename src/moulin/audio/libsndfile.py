"""Decoding by libsndfile (soundfile): WAV, FLAC, AIFF, OGG, MP3 and a dozen more."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from moulin.audio.decoded import CannotDecodeError, Sound, StoppedEarlyError, closing, reason, refusal
from moulin.audio.parts import BinaryFile

logger = logging.getLogger(__name__)

_CODED_FRAMES = 4096
_BLOCK_SAMPLES = 1 << 15
"""Samples of all channels in a block: what is done for each block costs as much as decoding some thousands."""
_PLAIN = ("PCM_16", "PCM_24", "PCM_32", "PCM_S8", "PCM_U8", "FLOAT", "DOUBLE", "ULAW", "ALAW")
"""Subtypes that are not coded, but in FLAC."""

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
    done, at_once = 0, _frames_at_once(sound)
    while True:
        block = np.empty((max(at_once, _BLOCK_SAMPLES // sound.channels), sound.channels), np.float32)
        filled, fault = 0, None
        while filled < len(block) and fault is None:
            try:
                read = len(sound.read(out=block[filled : filled + at_once]))
            except Exception as error:
                fault = error
                break
            if read == 0:
                break
            filled += read
        if filled:
            done += filled
            yield Sound(sound.samplerate, block[:filled])
        if fault is not None:
            if done == 0:
                raise refusal(name, fault) from fault
            if not isinstance(fault, librarys_error):
                raise fault
            raise StoppedEarlyError(reason(fault)) from fault
        if filled < len(block):
            break
    if done < sound.frames < _UNKNOWN_FRAMES:
        raise StoppedEarlyError(
            f"{done / sound.samplerate:.3f} s of a declared {sound.frames / sound.samplerate:.3f} s are there"
        )


def _frames_at_once(sound: Any) -> int:
    """Few of what is coded: of a truncated FLAC all frames of a read are lost in which libsndfile meets the end."""
    is_coded = sound.format == "FLAC" or sound.subtype not in _PLAIN
    return _CODED_FRAMES if is_coded else max(_CODED_FRAMES, _BLOCK_SAMPLES // sound.channels)
