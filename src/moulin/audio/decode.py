"""Audio in any container, encoding, rate and channel count to a waveform: float32 [N], mono, 16 kHz, in [-1, 1].

libsndfile (through soundfile) reads WAV, FLAC, OGG, MP3 and a dozen more. What it refuses goes to FFmpeg
(through PyAV, the extra `media`): M4A/AAC, MP4, WebM, WMA, AMR and damaged files that only FFmpeg decodes. Both give
blocks of samples, which are averaged over the channels and resampled one by one, so that beside the result only one
block is in memory.

Treatment of faulty files:

* Cut short, or with a wrong length in the header (a recorder that was killed, a WAV that was streamed and declares
  0xFFFFFFFF or 0 bytes): the samples present are decoded. Damage after the first decoded block ends the audio
  (libsndfile) or is skipped (FFmpeg); both are logged as warnings.
* Valid but without samples: an empty waveform.
* Nothing decodable, no audio track, NaN or infinite samples, a sample rate out of range: AudioError.
* Any other exception of a decoder (another version of a library, a bug in one, no memory): AudioError that names the
  exception's type; its traceback goes to the log, at level DEBUG.

Samples above 1, as lossy codecs produce for loud audio, are kept: clipping would only add distortion.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from moulin.audio.decoders import Block, CannotDecodeError, PyAvMissingError, described, ffmpeg_blocks, soundfile_blocks
from moulin.audio.pcm import PcmEncoding, pcm_to_float, sample_bytes
from moulin.audio.waveform import SAMPLE_RATE, check_waveform
from moulin.errors import AudioError, AudioTooLong, MoulinError
from moulin.extras import install_hint

logger = logging.getLogger(__name__)

# Rates of speech lie well within. Resampling from a header's 1 Hz would turn one megabyte into gigabytes.
_MIN_RATE, _MAX_RATE = 1_000, 768_000

_MAX_DECLARED_SEC = 7 * 24 * 3600.0


def read_audio(
    source: str | Path | bytes | BinaryIO,
    *,
    sample_rate: int = SAMPLE_RATE,
    max_duration_sec: float | None = None,
    name: str | None = None,
) -> NDArray[np.float32]:
    """Decode an audio file: float32 [N], the mean of its channels, at `sample_rate` Hz.

    `source` is a path, the file's content, or an open binary file (read from its position to its end, not closed).
    Audio longer than `max_duration_sec` is refused while decoding, so that a small file that unpacks to hours of
    silence cannot fill the memory. `name` replaces the path in error messages.

    Raises AudioTooLong, and AudioError when no audio can be decoded; the module's docstring lists the cases.
    """
    waveform = bytearray()  # grows in place; a list of blocks would need one more copy at the end
    for block in audio_blocks(source, sample_rate=sample_rate, max_duration_sec=max_duration_sec, name=name):
        waveform += block.data
    return np.frombuffer(waveform, np.float32)


def audio_blocks(
    source: str | Path | bytes | BinaryIO,
    *,
    sample_rate: int = SAMPLE_RATE,
    max_duration_sec: float | None = None,
    name: str | None = None,
) -> Iterator[NDArray[np.float32]]:
    """`read_audio` in blocks of a fraction of a second, as they are decoded; only one block is in memory at a time."""
    path_name, file = _open(source)
    name = path_name if name is None else name
    with file:
        try:
            if file.seek(0, io.SEEK_END) == 0:
                raise AudioError(f"{name} is empty (0 bytes), expected audio")
            file.seek(0)
            yield from _waveform_blocks(name, _decoded_blocks(name, file), sample_rate, max_duration_sec)
        except MoulinError:
            raise
        except Exception as error:
            raise _unexpected(name, error) from error


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
    if channels < 1:
        raise AudioError(f"expected at least 1 channel of PCM, got {channels}")
    frame_bytes = channels * sample_bytes(encoding)
    if len(data) % frame_bytes:
        raise AudioError(
            f"expected whole frames of {frame_bytes} bytes ({encoding}, {channels} channel(s)) of PCM,"
            f" got {len(data)} bytes",
            hint="a frame was split, or the encoding or the number of channels differs from the data's",
        )
    samples = check_waveform(pcm_to_float(data, encoding), what="PCM data")
    mono = samples.reshape(-1, channels).mean(axis=1) if channels > 1 else samples
    return resample(mono, sample_rate, SAMPLE_RATE)


def resample(samples: NDArray[np.float32], from_rate: int, to_rate: int) -> NDArray[np.float32]:
    """Resample float32 [N] with soxr's high-quality setting to round(N * to_rate / from_rate) samples.

    Returns `samples` itself when the rates are equal. Raises AudioError for rates outside 1,000 to 768,000 Hz.
    """
    _check_rate(from_rate, "audio")
    _check_rate(to_rate, "output audio")
    if from_rate == to_rate or samples.size == 0:
        return samples
    try:
        import soxr

        resampled: NDArray[np.float32] = soxr.resample(samples, from_rate, to_rate, quality="HQ")
    except Exception as error:
        raise _unexpected("audio", error) from error
    return resampled


class _InMemory(io.BytesIO):
    """An in-memory file that ignores a seek to before its beginning, which libsndfile does for broken headers:
    libsndfile calls from C, where an exception is printed instead of raised."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def _open(source: str | Path | bytes | BinaryIO) -> tuple[str, io.FileIO | io.BytesIO]:
    """The audio's name for error messages, and a seekable binary file of it."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "audio data", _InMemory(source)
    if not isinstance(source, str | Path):
        try:
            content = source.read()
        except Exception as error:
            raise AudioError(f"{getattr(source, 'name', 'audio data')} cannot be read: {described(error)}") from error
        if not isinstance(content, bytes):
            raise AudioError(f"expected a file opened in binary mode, got {type(content).__name__} from {source!r}")
        return str(getattr(source, "name", "audio data")), _InMemory(content)
    path = Path(source)
    try:
        file = path.open("rb", buffering=0)
        if file.seekable():
            return str(path), file
        with file:  # a pipe, such as bash's <(...)
            return str(path), _InMemory(file.read())
    except FileNotFoundError as error:
        raise AudioError(f"{path} does not exist, expected an audio file") from error
    except IsADirectoryError as error:
        raise AudioError(f"{path} is a directory, expected an audio file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise AudioError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _decoded_blocks(name: str, file: io.FileIO | io.BytesIO) -> Iterator[Block]:
    """Blocks decoded by libsndfile or, where it refuses the file, by FFmpeg."""
    try:
        yield from soundfile_blocks(name, file)
        return
    except CannotDecodeError as refusal:
        libsndfile_reason = refusal
    file.seek(0)
    try:
        yield from ffmpeg_blocks(name, file)
    except PyAvMissingError as error:
        raise AudioError(
            f"{name} cannot be decoded: libsndfile says '{libsndfile_reason}'",
            hint=f"for M4A, AAC, WebM, WMA and video files: {install_hint('media')}",
        ) from error
    except CannotDecodeError as ffmpeg_reason:
        raise AudioError(
            f"{name} cannot be decoded as audio: libsndfile says '{libsndfile_reason}', FFmpeg says '{ffmpeg_reason}'"
        ) from ffmpeg_reason


def _waveform_blocks(
    name: str, blocks: Iterator[Block], sample_rate: int, max_duration_sec: float | None
) -> Iterator[NDArray[np.float32]]:
    """Check, mix down and resample blocks as they come."""
    import soxr

    rate, stream, frames = 0, None, 0
    for block_rate, block in blocks:
        if rate == 0:
            _check_rate(block_rate, name)
            rate = block_rate
            if rate != sample_rate:
                stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
        elif block_rate != rate:
            raise AudioError(
                f"{name} changes its sample rate from {rate} to {block_rate} Hz after {frames / rate:.3f} s",
                hint="convert it to a single rate, for example with ffmpeg -i INPUT -ar 16000 OUTPUT.wav",
            )
        _check_finite(name, block, frames, rate)
        frames += len(block)
        if max_duration_sec is not None and frames > max_duration_sec * rate:
            raise AudioTooLong(f"{name} is too long: expected at most {max_duration_sec:g} s of audio")
        with np.errstate(over="ignore"):  # channels of 3e38 add up to infinity, which is refused
            mono = block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]
        yield check_waveform(stream.resample_chunk(mono) if stream else mono, what=name)
    if stream:
        yield check_waveform(stream.resample_chunk(np.zeros(0, np.float32), last=True), what=name)


def _unexpected(name: str, error: Exception) -> AudioError:
    """An AudioError for an exception that no decoder documents. Its traceback goes to the log."""
    logger.debug("%s: decoding failed with an unexpected exception", name, exc_info=error)
    return AudioError(
        f"{name} cannot be decoded: the decoder failed with {described(error)}",
        hint="ffmpeg -i INPUT -ar 16000 OUTPUT.wav may convert it to a readable file",
    )


def _check_rate(rate: int, name: str) -> None:
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise AudioError(f"{name}: expected a sample rate of {_MIN_RATE} to {_MAX_RATE} Hz, got {rate}")


def _check_finite(name: str, block: NDArray[np.float32], first_frame: int, rate: int) -> None:
    finite = np.isfinite(block)
    if not finite.all():
        frame, channel = np.argwhere(~finite)[0]
        raise AudioError(
            f"{name}: expected finite samples, got {block[frame, channel]} at sample {first_frame + frame}"
            f" ({(first_frame + frame) / rate:.3f} s)",
            hint="the program that made this file divided by zero or overflowed",
        )
