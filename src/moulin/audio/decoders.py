"""The two libraries that decode audio files, libsndfile and FFmpeg, as iterators of blocks of samples.

A library's refusal of a file is a `CannotDecodeError`. Before the first block, where the other library may still decode
the file, so is any other exception, which is logged at level DEBUG with its traceback; after it, such an exception
passes through to the caller.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.audio.pcm import scale_to_float
from moulin.errors import AudioError, first_line

logger = logging.getLogger(__name__)

# Small, because a truncated FLAC loses the whole block in which libsndfile meets the truncation.
_BLOCK_FRAMES = 4096

# A file that declares no samples but is larger than any header was never given its length by its writer.
_MAX_HEADER_BYTES = 4096

# FFmpeg also has demuxers for playlists (HLS, DASH, concat) that open other files and URLs named in the data; an
# uploaded file must not be able to do that. Hence only containers that hold their audio themselves. Flash video is not
# among them: with the option `format_whitelist` the FFmpeg of PyAV 15 and 16 ends with a segmentation fault for every
# such file, that of PyAV 18 for damaged ones.
_FFMPEG_CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,eac3,flac,matroska,mov,mp3,mpeg,mpegts,ogg,rm,tta,w64,wav,wv"
)

Block = tuple[int, NDArray[np.float32]]
"""The sample rate in Hz, and samples: float32 [frames, channels]."""


class CannotDecodeError(Exception):
    """A decoder library cannot read a file; str() is its reason."""


class PyAvMissingError(Exception):
    """PyAV, which brings FFmpeg, is not installed."""


def described(error: Exception) -> str:
    """An exception's type and the first line of its message, for use in an error message."""
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
        error = error.__cause__  # Python turns a StopIteration that leaves a generator into a RuntimeError
    said = first_line(error)
    kind = type(error).__name__
    return kind if said == kind else f"{kind}: {said}"


def soundfile_blocks(name: str, file: io.FileIO | io.BytesIO) -> Iterator[Block]:
    """Decode with libsndfile. Raises CannotDecodeError when not even the first block can be decoded."""
    try:
        import soundfile

        # A descriptor, not the file object: soundfile would take `speech.raw` for headerless PCM because of its name.
        handle = file.fileno() if isinstance(file, io.FileIO) else file
        sound = soundfile.SoundFile(handle, closefd=False)
    except Exception as error:
        raise _refusal(name, error) from error
    # soundfile seeks to the current position after every read of a seekable file. An MP3 decoder loses its bit
    # reservoir with each seek: read in blocks, a valid file would turn into noise.
    sound.seekable = lambda: False
    with _closing(name, sound):
        if sound.frames == 0 and file.seek(0, io.SEEK_END) > _MAX_HEADER_BYTES:
            raise CannotDecodeError("The header declares no samples")
        done = 0
        while True:
            try:
                block = sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
            except Exception as error:
                if done == 0:
                    raise _refusal(name, error) from error
                if not isinstance(error, soundfile.LibsndfileError):
                    raise
                logger.warning(
                    "%s is damaged or cut short (%s); only its first %.3f s of a declared %.3f s were decoded",
                    name, error.error_string, done / sound.samplerate, sound.frames / sound.samplerate,
                )  # fmt: skip
                return
            if len(block) == 0:
                return
            done += len(block)
            yield sound.samplerate, block


def ffmpeg_blocks(name: str, file: io.FileIO | io.BytesIO) -> Iterator[Block]:
    """Decode the first audio track with FFmpeg.

    Raises CannotDecodeError when nothing can be decoded, AudioError for a file without an audio track, and
    PyAvMissingError.
    """
    try:
        import av
        from av.error import FFmpegError
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != "av":
            raise _refusal(name, error) from error
        raise PyAvMissingError(str(error)) from error
    except Exception as error:  # for example a missing shared library
        raise _refusal(name, error) from error

    try:
        container = _opened(av, file)
    except Exception as error:
        raise _refusal(name, error) from error
    with _closing(name, container):
        try:
            track = _audio_track(name, container)
            packets = container.demux(track)
        except (AudioError, CannotDecodeError):
            raise
        except Exception as error:
            raise _refusal(name, error) from error
        damage: Exception | None = None
        decoded = False
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except FFmpegError as error:  # the container ends in the middle of a packet
                damage = error
                break
            except Exception as error:
                if decoded:
                    raise
                raise _refusal(name, error) from error
            try:
                frames = packet.decode()
            except FFmpegError as error:  # live recordings often start with packets that refer to earlier ones
                damage = error
                continue
            except Exception as error:
                if decoded:
                    raise
                raise _refusal(name, error) from error
            for frame in frames:
                samples = scale_to_float(frame.to_ndarray())
                samples = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
                decoded = True
                yield frame.sample_rate, samples
        if damage is not None and not decoded:
            raise _refusal(name, damage) from damage
        if damage is not None:
            logger.warning("%s is damaged or cut short (%s); the rest was decoded", name, _reason(damage))


def _audio_track(name: str, container: Any) -> Any:
    """The first audio track with a codec that FFmpeg knows; decoding any other ends PyAV 17 with a segmentation fault.
    Raises AudioError and CannotDecodeError."""
    tracks = container.streams.audio
    if not tracks:
        kinds = " and ".join(sorted({stream.type for stream in container.streams}))
        raise AudioError(f"{name} has no audio track, only {kinds or 'empty'} streams")
    for track in tracks:
        if track.codec_context is not None:
            return track
    raise CannotDecodeError("The audio's codec is not known")


def _opened(av: Any, file: io.FileIO | io.BytesIO) -> Any:
    """The container in `file`. Its tags may be in any encoding: PyAV below 19 decodes them as UTF-8 and fails unless
    told to ignore errors; PyAV 19 has no such argument and does not fail."""
    options = {"format_whitelist": _FFMPEG_CONTAINERS}
    try:
        return av.open(file, mode="r", options=options)
    except UnicodeDecodeError:
        file.seek(0)
        return av.open(file, mode="r", options=options, metadata_errors="ignore")


def _refusal(name: str, error: Exception) -> CannotDecodeError:
    """A library's own reason for refusing a file; for any other exception its description, with a log entry."""
    if not _is_the_librarys(error):
        logger.debug("%s: a decoder failed with an unexpected exception", name, exc_info=error)
    return CannotDecodeError(_reason(error))


def _reason(error: Exception) -> str:
    if not _is_the_librarys(error):
        return described(error)
    said = getattr(error, "error_string", None) or getattr(error, "strerror", None) or first_line(error)
    return str(said).rstrip(".")


def _is_the_librarys(error: Exception) -> bool:
    """Whether libsndfile or FFmpeg raised `error` to refuse a file."""
    module = type(error).__module__.partition(".")[0]
    return module in ("soundfile", "av")


@contextmanager
def _closing(name: str, decoder: Any) -> Iterator[None]:
    """Close `decoder` on leaving. Its failure to close is raised only where nothing else is being raised; closing the
    iterator early (GeneratorExit) counts as something else."""
    try:
        yield
    except BaseException:
        try:
            decoder.close()
        except Exception as error:
            logger.debug("%s: a decoder failed to close", name, exc_info=error)
        raise
    decoder.close()
