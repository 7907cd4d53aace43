"""Decoding by libsndfile (soundfile): WAV, FLAC, AIFF, OGG, MP3 and a dozen more."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from moulin.audio.decoded import CannotDecodeError, Sound, StoppedEarlyError, closing, reason, refusal
from moulin.audio.faults import Faults
from moulin.audio.part import BinaryFile
from moulin.audio.sample_format import FormatGuard
from moulin.audio.waveform import as_floats

logger = logging.getLogger(__name__)

_CODED_FRAMES = 4096
_BLOCK_SAMPLES = 1 << 15
"""Samples of all channels in a block: what is done for each block costs as much as decoding some thousands."""
_PLAIN = ("PCM_16", "PCM_24", "PCM_32", "PCM_S8", "PCM_U8", "FLOAT", "DOUBLE", "ULAW", "ALAW")
"""Subtypes that are not coded, but in FLAC."""

_WAV = ("WAV", "WAVEX", "RF64", "W64")

# A file that declares no samples but is larger than any header was never given its length by its writer.
_MAX_HEADER_BYTES = 4096

_MPEG_TOLERANCE_SEC = 0.5

_UNKNOWN_FRAMES = 1 << 40
"""libsndfile gives 2**63 - 1 where a header has no length."""


def soundfile_sounds(name: str, file: BinaryFile, faults: Faults) -> Iterator[Sound]:
    """Decode `file` from its beginning. A WAV whose header says int16 and whose samples are others goes to `faults`.

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
        if _is_misread(sound):
            raise CannotDecodeError("libsndfile takes its samples for others")
        sounds = _blocks(name, sound, soundfile.LibsndfileError)
        yield from _guarded(sounds, sound, faults) if _says_int16(sound) else sounds


def _says_int16(sound: Any) -> bool:
    return sound.format in _WAV and sound.subtype == "PCM_16"


def _guarded(sounds: Iterator[Sound], sound: Any, faults: Faults) -> Iterator[Sound]:
    """`sounds`, and a fault where the first of them seem to be no int16 but another format."""
    guard = FormatGuard("s16le", sound.samplerate, sound.channels)
    for each in sounds:
        if not guard.is_done:
            _add(guard.accept((each.samples * 32768).astype("<i2").tobytes()), faults)
        yield each
    _add(guard.rest(), faults)


def _add(doubt: str | None, faults: Faults) -> None:
    if doubt is not None:
        faults.add(doubt)


def _is_misread(sound: Any) -> bool:
    """Whether noise would come: libsndfile takes a W64's extended format for integers whatever it says, and headers
    within a VOC for samples."""
    said = sound.extra_info
    if sound.format == "W64":
        return "WAVE_FORMAT_EXTENSIBLE" in said and "format : pcm" not in said
    return sound.format == "VOC" and "multi-segment" in said


def _blocks(name: str, sound: Any, librarys_error: type[Exception]) -> Iterator[Sound]:
    done, at_once = 0, _frames_at_once(sound)
    # libsndfile takes five times as long as numpy to make the same floats of 16-bit samples.
    dtype = np.int16 if sound.subtype == "PCM_16" else np.float32
    while True:
        block: Any = np.empty((max(at_once, _BLOCK_SAMPLES // sound.channels), sound.channels), dtype)
        filled, fault = 0, None
        while filled < len(block) and fault is None:
            try:
                # Not beyond what is declared: an ID3 tag behind a FLAC would cost the last frames.
                wanted = min(at_once, sound.frames - done - filled)
                read = len(sound.read(out=block[filled : filled + wanted])) if wanted > 0 else 0
            except Exception as error:
                fault = error
                break
            if read == 0:
                break
            filled += read
        if filled:
            done += filled
            yield Sound(sound.samplerate, as_floats(block[:filled]))
        if fault is not None:
            if done == 0:
                raise refusal(name, fault) from fault
            if not isinstance(fault, librarys_error):
                raise fault
            raise StoppedEarlyError(reason(fault)) from fault
        if filled < len(block):
            break
    if done + _allowed_less(sound) < sound.frames < _UNKNOWN_FRAMES:
        raise StoppedEarlyError(
            f"{done / sound.samplerate:.3f} s of a declared {sound.frames / sound.samplerate:.3f} s are there"
        )


def _frames_at_once(sound: Any) -> int:
    """Few of what is coded: of a truncated FLAC all frames of a read are lost in which libsndfile meets the end."""
    return _CODED_FRAMES if _is_coded(sound) else max(_CODED_FRAMES, _BLOCK_SAMPLES // sound.channels)


def _allowed_less(sound: Any) -> int:
    """Frames that a whole file may have less than its header declares: of MP3 in WAV the length is guessed."""
    return round(_MPEG_TOLERANCE_SEC * sound.samplerate) if sound.subtype.startswith("MPEG") else 0


def _is_coded(sound: Any) -> bool:
    return sound.format == "FLAC" or sound.subtype not in _PLAIN
