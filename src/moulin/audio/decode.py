"""Audio in any container, encoding, rate and channel count to a waveform: float32 [N], mono, 16 kHz, in [-1, 1].

`Recording` decodes; here are its short forms, and raw PCM. Treatment of faulty files:

* Cut short, or with a wrong length in the header (a recorder that was killed, a WAV that was streamed and declares
  0xFFFFFFFF or 0 bytes): the samples present are decoded. Damage is skipped. What is missing is a warning.
* Several files in one, one after another: all are decoded.
* Valid but without samples: an empty waveform.
* Nothing decodable, no audio track, NaN or infinite samples, a sample rate out of range: AudioError.
* Any other exception of a decoder (another version of a library, a bug in one, no memory): AudioError that names the
  exception's type; its traceback goes to the log, at level DEBUG.

Samples above 1, as lossy codecs produce for loud audio, are kept: clipping would only add distortion.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moulin.audio.decoded import check_rate, described
from moulin.audio.pcm import PcmEncoding, RawFormat, pcm_frames
from moulin.audio.recording import Recording, unexpected
from moulin.audio.sample_format import format_doubt
from moulin.audio.source_file import Source
from moulin.audio.timeline import Skip
from moulin.audio.waveform import SAMPLE_RATE, check_waveform

logger = logging.getLogger(__name__)

_MAX_DECLARED_SEC = 7 * 24 * 3600.0


def read_audio(
    source: Source,
    *,
    sample_rate: int = SAMPLE_RATE,
    max_duration_sec: float | None = None,
    name: str | None = None,
) -> NDArray[np.float32]:
    """Decode an audio file: float32 [N], its channels mixed to one, at `sample_rate` Hz.

    `source` is a path, the file's content, or an open binary file (read from its position to its end, not closed).
    Audio longer than `max_duration_sec` is refused while decoding, so that a small file that unpacks to hours of
    silence cannot fill the memory. `name` replaces the path in error messages. A gap of more than 60 s in the
    container's time stamps is left out, so that what follows is earlier by as much; a `Recording` keeps the times.

    Raises AudioTooLong, and AudioError when no audio can be decoded; the module's docstring lists the cases.
    """
    waveform = bytearray()  # grows in place; a list of blocks would need one more copy at the end
    for block in audio_blocks(source, sample_rate=sample_rate, max_duration_sec=max_duration_sec, name=name):
        waveform += block.data
    return np.frombuffer(waveform, np.float32)


def audio_blocks(
    source: Source,
    *,
    sample_rate: int = SAMPLE_RATE,
    max_duration_sec: float | None = None,
    name: str | None = None,
) -> Iterator[NDArray[np.float32]]:
    """`read_audio` in blocks of a fraction of a second, as they are decoded; only one block is in memory at a time.

    A `Recording` also tells what is missing, which here goes to the log, and chooses channels and tracks.
    """
    recording = Recording(source, sample_rate=sample_rate, max_duration_sec=max_duration_sec, name=name)
    try:
        for block in recording:
            if not isinstance(block, Skip):
                yield block
    finally:
        recording.close()
        for warning in recording.warnings:
            logger.warning("%s: %s", name or (source if isinstance(source, str | Path) else "audio data"), warning)


def declared_duration_sec(path: str | Path) -> float | None:
    """The duration in the file's header, which may be wrong; None without one, or where only FFmpeg reads the file."""
    try:
        import soundfile

        info = soundfile.info(str(path))
    except Exception as error:  # decoding the file will report the fault
        logger.debug("%s: the header gives no duration (%s)", path, described(error))
        return None
    # A recorder that was killed, or that wrote to a pipe, leaves 0 or the largest possible number.
    return float(info.duration) if 0 < info.duration < _MAX_DECLARED_SEC else None


def decode_pcm(
    data: bytes, *, sample_rate: int, channels: int = 1, encoding: PcmEncoding = "s16le"
) -> NDArray[np.float32]:
    """Decode headerless PCM of `sample_rate` Hz with interleaved channels: float32 [N], their mean, at 16 kHz.

    Raises AudioError when `data` does not hold a whole number of frames, for NaN or infinite samples, and for a rate,
    channel count or encoding out of range.
    """
    samples = pcm_frames(data, RawFormat(encoding, sample_rate, channels))
    check_waveform(samples.reshape(-1), what="PCM data")
    if doubt := format_doubt(data, encoding, channels):
        logger.warning("PCM data: %s", doubt)
    mono = samples.mean(axis=1) if channels > 1 else samples[:, 0]
    return resample(mono, sample_rate, SAMPLE_RATE)


def resample(samples: NDArray[np.float32], from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Resample float32 [N] with soxr's high-quality setting to round(N * to_rate / from_rate) samples.

    Returns `samples` itself when the rates are equal. Raises AudioError for rates outside 1,000 to 768,000 Hz.
    """
    check_rate(from_rate, "audio")
    check_rate(to_rate, "output audio")
    if from_rate == to_rate or samples.size == 0:
        return samples
    try:
        import soxr

        resampled: NDArray[np.float32] = soxr.resample(samples, from_rate, to_rate, quality="HQ")
    except Exception as error:
        raise unexpected("audio", error) from error
    return resampled
