"""Decoding by FFmpeg (PyAV): every container that people have, with its time stamps, tracks and changes of rate.

Frames become float samples by FFmpeg's filters, several a call; its channels stay apart, and rates are as they are.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.audio.coded_frames import encoder_delay_sec, is_cut
from moulin.audio.decoded import CannotDecodeError, Gap, PyAvMissingError, Sound, check_rate, closing, reason, refusal
from moulin.audio.faults import Faults
from moulin.audio.mp4_boxes import EditList, edited
from moulin.audio.ogg_pages import OggPages
from moulin.audio.part import BinaryFile
from moulin.audio.patience import Patience, PatientFile
from moulin.audio.pcm import scale_to_float
from moulin.audio.timeline import MAX_GAPS_SEC, Timeline
from moulin.audio.transport_stream import interruptions
from moulin.audio.waveform import SAMPLE_RATE
from moulin.errors import AudioError

logger = logging.getLogger(__name__)

# FFmpeg also has demuxers for playlists (HLS, DASH, concat) that open other files and URLs named in the data; an
# uploaded file must not be able to do that. Hence only containers that hold their audio themselves; and not those of
# AMR without a header (amrnb, amrwb): FFmpeg would take text for it, where all lines have one length.
_FFMPEG_CONTAINERS = (
    "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,eac3,flac,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,"
    "ogg,oma,rm,tak,tta,voc,w64,wav,wtv,wv,xwma"
)

_EXACT_LENGTHS = ("aiff", "ape", "au", "caf", "flac", "matroska", "mov", "tta", "w64", "wav", "wv")
"""Containers that declare the length of their audio; of the others FFmpeg estimates it by the bit rate."""

_BLOCK_SAMPLES = 4096
"""Of a block at 16 kHz; at higher rates as many times more."""

_FRAMES_AT_ONCE = 16
"""Frames that go into the filters before blocks are taken out of them; asking costs as much as a frame's decoding."""

_DEFAULT, _COMMENT, _FOR_THE_BLIND, _COVER = 1, 0x8, 0x100, 0x400
"""Of FFmpeg's dispositions of a track: the one to play, people who talk about it, a description of the picture, and a
picture that is the file's cover."""

_TAGGED_LENGTH = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_LEAST_MISSING_SEC = 0.5
_LOOKED_AT_SEC = 60.0
"""The beginning of a track by which it is taken for silent."""

_MOST_LOOKED_AT = 32
"""Tracks that are looked at for sound: each takes a pass through the file."""

_SILENT_PEAK = 1e-3

_MOST_TAG_BYTES = 1024
"""Of what a writer puts behind the audio (ID3v1: 128 bytes, with its extension 355)."""

CHOOSE_TRACK = "moulin's option --track NUMBER, or its REST field track, chooses another one"
"""A hint."""


def ffmpeg_sounds(
    name: str,
    file: BinaryFile,
    *,
    track: int | None,
    is_first: bool,
    faults: Faults,
    patience: Patience,
) -> Iterator[Sound | Gap]:
    """Decode one audio track of `file`: sound at its own rate, and the gaps between it.

    `track` counts audio tracks from 1; None chooses one (`_chosen`). The recording begins where its earliest track
    does; an MP4 file that `is_first` begins at zero. What is damaged or missing goes to `faults`.

    Raises CannotDecodeError when nothing can be decoded, AudioError for a file without (that) audio track, and
    PyAvMissingError.
    """
    movie = edited(PatientFile(file, patience))
    with opened(name, movie.file) as container:
        try:
            stream = _chosen(name, container, movie.file, track, faults)
            patience.renew()
            edits = movie.edits.get(stream.id)
            timeline = timeline_of(container, _zero_sec(container, is_first), edits.pauses if edits else ())
            frames = Frames(name, container, stream, movie.file.tell)
            if container.format.name == "ogg":
                headers = stream.codec_context.extradata or b""
                pages = OggPages(movie.file, float(stream.time_base), faults, headers)
                frames.packets = pages.timed(frames.packets)
        except (AudioError, CannotDecodeError):
            raise
        except Exception as error:
            raise refusal(name, error) from error
        yield from _sounds(frames, timeline, faults, edits)
        if container.format.name == "mpegts":
            with suppress(CannotDecodeError):
                places = interruptions(PatientFile(file, patience), stream.id)
                if places:
                    faults.damaged(f"packets are missing at {places} place{'s'[: places > 1]}")


def audio_tracks(name: str, file: BinaryFile) -> int:
    """The number of audio tracks. Raises as `ffmpeg_sounds`."""
    with opened(name, PatientFile(file, Patience())) as container:
        return len(container.streams.audio)


@contextmanager
def opened(name: str, file: BinaryFile) -> Iterator[Any]:
    """PyAV's container of `file`, read from its beginning. Raises CannotDecodeError and PyAvMissingError."""
    try:
        import av
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] != "av":
            raise refusal(name, error) from error
        raise PyAvMissingError(str(error)) from error
    except Exception as error:  # for example a missing shared library
        raise refusal(name, error) from error
    file.seek(0)
    try:
        container = _open(av, file)
    except Exception as error:
        raise refusal(name, error) from error
    with closing(name, container):
        yield container


def _open(av: Any, file: BinaryFile) -> Any:
    """The container in `file`. Its tags may be in any encoding: PyAV below 19 decodes them as UTF-8 and fails unless
    told to ignore errors; PyAV 19 has no such argument and does not fail."""
    how = how_to_open(file.read(4))
    file.seek(0)
    try:
        return av.open(file, mode="r", **how)
    except UnicodeDecodeError:
        file.seek(0)
        return av.open(file, mode="r", **how, metadata_errors="ignore")


def how_to_open(head: bytes) -> dict[str, Any]:
    """Arguments of `av.open` for a file that begins with `head`, of at least four bytes."""
    # Flash video by its name: with `format_whitelist`, FFmpeg ends with a segmentation fault for damaged files of it.
    if head[:4] == b"FLV\1":
        return {"format": "flv"}
    return {"options": {"format_whitelist": _FFMPEG_CONTAINERS}}


def _chosen(name: str, container: Any, file: BinaryFile, track: int | None, faults: Faults) -> Any:
    """The audio track `track`, or the best: the first by `rank` that is not silent.

    Only tracks with a codec that FFmpeg knows; decoding any other ends PyAV 17 with a segmentation fault.
    """
    tracks = list(container.streams.audio)
    if not tracks:
        kinds = " and ".join(sorted({stream.type for stream in container.streams}))
        raise AudioError(f"{name} has no audio track, only {kinds or 'empty'} streams")
    if track is not None and track > len(tracks):
        raise no_such_track(name, len(tracks), track)
    known = [stream for stream in tracks if stream.codec_context is not None]
    if track is not None:
        known = [stream for stream in known if stream is tracks[track - 1]]
    if not known:
        raise CannotDecodeError("The audio's codec is not known")
    if len(known) == 1:
        if len(tracks) > 1 and track is None:
            faults.add(f"only one of {len(tracks)} audio tracks can be decoded")
        return known[0]
    by_default = sorted(known, key=rank)
    heard = next(
        (
            stream
            for limit_sec in (_LOOKED_AT_SEC, float("inf"))
            for stream in by_default[:_MOST_LOOKED_AT]
            if not _is_silent(name, file, tracks.index(stream), limit_sec)
        ),
        by_default[0],
    )
    faults.add(
        f"the file has {len(tracks)} audio tracks, of which number {tracks.index(heard) + 1} was transcribed",
        hint=CHOOSE_TRACK,
    )
    return heard


def no_such_track(name: str, count: int, track: int) -> AudioError:
    return AudioError(f"{name} has {count} audio track{'s'[: count > 1]}, expected track {track}")


def rank(stream: Any) -> tuple[bool, bool]:
    """The order of tracks: default ones first, and of these, and of the others, what is no comment or description."""
    return not _has_disposition(stream, _DEFAULT), _has_disposition(stream, _COMMENT | _FOR_THE_BLIND)


def _is_silent(name: str, file: BinaryFile, number: int, limit_sec: float) -> bool:
    """Whether audio track `number`, counted from 0, has no sound in its first `limit_sec`.

    The file's position is kept: a container that is open already reads on from there.
    """
    position = file.tell()
    patience = Patience()
    try:
        with opened(name, PatientFile(file, patience)) as container:
            frames = Frames(name, container, container.streams.audio[number], file.tell)
            sounds = _sounds(frames, Timeline(0.0), Faults())
            heard_sec = 0.0
            for sound in sounds:
                if isinstance(sound, Gap):
                    continue
                if sound.samples.size and np.abs(sound.samples).max() > _SILENT_PEAK:
                    return False
                heard_sec += len(sound.samples) / sound.rate
                patience.renew()
                if heard_sec > limit_sec:
                    break
    except Exception as error:
        logger.debug("%s: audio track %d cannot be decoded", name, number + 1, exc_info=error)
    finally:
        file.seek(position)
    return True


def timeline_of(container: Any, zero_sec: float, pauses: Sequence[tuple[float, float]] = ()) -> Timeline:
    """A timeline that begins at the time stamp `zero_sec`. AVI has none: FFmpeg counts blocks, and too many of them
    where one has more bytes than the header says."""
    return Timeline(zero_sec, pauses, is_rough=container.format.name == "avi")


def _zero_sec(container: Any, is_first: bool) -> float:
    """The time stamp at which the recording begins."""
    start_sec = (container.start_time or 0) / 1_000_000
    if is_first and "mov" in container.format.name.split(","):
        return min(start_sec, 0.0)
    return float(start_sec)


def _sounds(frames: Frames, timeline: Timeline, faults: Faults, edits: EditList | None = None) -> Iterator[Sound | Gap]:
    """Decoded sound and gaps, without the encoder's delay where the container does not know it."""
    left_sec: float | None = None
    for sound in _placed(frames, timeline, faults, edits):
        if isinstance(sound, Gap):
            yield sound
            # A track that begins late has room for the delay before it, and its time stamps are right.
            left_sec = 0.0 if left_sec is None else left_sec
            continue
        if left_sec is None:
            left_sec = frames.delay_sec
        skipped = min(round(left_sec * sound.rate), len(sound.samples))
        if skipped:
            left_sec -= skipped / sound.rate
            sound = Sound(sound.rate, sound.samples[skipped:])
        if len(sound.samples):
            yield sound


def _placed(frames: Frames, timeline: Timeline, faults: Faults, edits: EditList | None) -> Iterator[Sound | Gap]:
    """Decoded sound, and the gaps between it."""
    name, container, stream = frames.name, frames.container, frames.stream
    converter: _Converter | None = None
    end_sec, decoded = 0.0, False
    unit_sec = float(stream.time_base)
    for frame in frames:
        start_sec = None if frame.pts is None else frame.pts * unit_sec
        duration_sec = frame.samples / frame.sample_rate
        gap_sec = timeline.gap_before(start_sec, duration_sec)
        if start_sec is not None:
            end_sec = start_sec + duration_sec
        decoded = True
        if converter is not None and (gap_sec or not converter.takes(frame)):
            yield from converter.rest()
            converter = None
        if gap_sec:
            yield Gap(gap_sec)
        if converter is None:
            check_rate(frame.sample_rate, name)
            converter = _Converter(frame)
        yield from converter.taken(frame)
    if converter is not None:
        yield from converter.rest()
    if timeline.is_beyond:
        faults.add(f"time stamps jump by more than {MAX_GAPS_SEC / 3600:.0f} hours; times go on without such a jump")
    if not decoded and not stream.codec_context.sample_rate:  # a format that FFmpeg guessed by the file's suffix alone
        raise CannotDecodeError("No audio is in it")
    if frames.damage is not None:
        if not decoded:
            raise refusal(name, frames.damage) from frames.damage
        faults.damaged(reason(frames.damage))
    elif frames.is_cut:
        faults.damaged("the last frame is not whole")
    elif frames.skipped_bytes:
        faults.damaged(f"{frames.skipped_bytes:,} bytes are no frames")
    declared_sec = edits.end_sec if edits is not None else _declared_end_sec(container, stream)
    if declared_sec is not None and declared_sec - end_sec > max(_LEAST_MISSING_SEC, 0.01 * declared_sec):
        faults.missing(declared_sec - end_sec)


def _declared_end_sec(container: Any, stream: Any) -> float | None:
    """The time stamp at which the container says that the track ends; None where it does not say or only guesses."""
    names = set(container.format.name.split(","))
    if not names & set(_EXACT_LENGTHS):
        return None
    if "matroska" in names and len(container.streams) > 1:  # the track's length is guessed by that of the whole
        return _tagged_sec(stream.metadata.get("DURATION", ""))
    if stream.duration is not None and stream.time_base is not None:
        # Only MP4 counts from the track's own start; others from zero.
        start = (stream.start_time or 0) if "mov" in names else 0
        return float((start + stream.duration) * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return float(container.duration) / 1_000_000
    return None


def _tagged_sec(text: str) -> float | None:
    """The length in a tag of Matroska's, such as 00:01:34.456000000."""
    match = _TAGGED_LENGTH.fullmatch(text)
    return None if match is None else int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])


class Frames:
    """Decoded frames of a track. `damage` is the last error of FFmpeg's on the way, after which decoding went on."""

    def __init__(self, name: str, container: Any, stream: Any, read: Callable[[], int]) -> None:
        """`read` says how many bytes of the file have been read. Raises CannotDecodeError."""
        self.name, self.container, self.stream, self._read = name, container, stream, read
        try:
            self.packets: Iterator[Any] = container.demux(stream)
        except Exception as error:
            raise refusal(name, error) from error
        self.damage: Exception | None = None
        self.is_cut = False
        """Whether the last frame has fewer bytes than it should: known at the end."""
        self.skipped_bytes = 0
        """Bytes of raw AAC (ADTS) that belong to no frame: known at the end. FFmpeg 8 said an error where it found the
        next frame, FFmpeg 9 says nothing."""
        self.delay_sec = 0.0
        """What the encoder put before the beginning, if the container does not say so: known with the first frame."""

    def __iter__(self) -> Iterator[Any]:
        from av.error import FFmpegError

        decoded = False
        last: Any = None
        codec = self.stream.codec_context.codec.canonical_name
        packets = iter(self.packets)
        begin, in_packets = 0, 0
        without_sound: int | None = None
        """The time of the first packet of Vorbis, from which only the next one can be decoded."""
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                self.is_cut = last is not None and is_cut(codec, bytes(last))
                if (
                    self.container.format.name == "aac"
                    and (skipped := self._read() - begin - in_packets) > _MOST_TAG_BYTES
                ):
                    self.skipped_bytes = skipped
                return
            except (FFmpegError, CannotDecodeError) as error:  # the container ends in the middle of a packet
                self.damage = error
                return
            except Exception as error:
                if decoded:
                    raise
                raise refusal(self.name, error) from error
            try:
                frames = (_kept(packet) if _is_no_repetition(packet, last) else packet).decode()
            except FFmpegError as error:  # live recordings often start with packets that refer to earlier ones
                self.damage = error
                continue
            except Exception as error:
                if decoded:
                    raise
                raise refusal(self.name, error) from error
            if last is None and frames and _knows_no_delay(self.container, packet, frames[0]):
                self.delay_sec = encoder_delay_sec(codec, bytes(packet), frames[0])
            if last is None and not frames and codec == "vorbis":
                without_sound = packet.pts
            if packet.size:
                begin = (packet.pos or 0) if last is None else begin
                in_packets += packet.size
                last = packet
            for frame in frames:
                if not decoded and without_sound is not None and without_sound >= 0:
                    frame.pts = without_sound  # its time is right where it is below 0, else that of sound
                decoded = True
                if frame.samples:
                    yield frame


def _is_no_repetition(packet: Any, before: Any) -> bool:
    """Whether FFmpeg drops a packet for its time stamp alone, which is that of the one before it. Files with a fragment
    for every frame have such: their writers (FFmpeg among them) round the times of fragments."""
    return (
        bool(packet.is_discard) and before is not None and packet.dts == before.dts and bytes(packet) != bytes(before)
    )


def _kept(packet: Any) -> Any:
    """`packet` without the mark by which FFmpeg drops it."""
    from av import Packet

    kept = Packet(bytes(packet))
    kept.stream, kept.time_base = packet.stream, packet.time_base
    kept.pts, kept.dts = packet.pts, packet.dts
    return kept


def _knows_no_delay(container: Any, packet: Any, frame: Any) -> bool:
    """Whether nothing was taken off a track's first packet. Beside a picture, time stamps are right as they are."""
    pictures = [
        stream for stream in container.streams if stream.type == "video" and not _has_disposition(stream, _COVER)
    ]
    return not pictures and packet.pts == frame.pts and container.format.name != "asf"


def _has_disposition(stream: Any, flag: int) -> bool:
    return bool(int(getattr(stream, "disposition", 0)) & flag)


class _Converter:
    """Frames of one rate, format and layout to sound, many at once."""

    def __init__(self, frame: Any) -> None:
        self._kind = kind_of(frame)
        self._channels = frame.layout.nb_channels
        self._rate = frame.sample_rate
        self._waiting = 0
        self._graph = _graph(frame)

    def takes(self, frame: Any) -> bool:
        return kind_of(frame) == self._kind

    def taken(self, frame: Any) -> Iterator[Sound]:
        """The sound that is ready after `frame`."""
        if self._graph is None:
            samples = scale_to_float(frame.to_ndarray())
            samples = samples.T if frame.format.is_planar else samples.reshape(-1, self._channels)
            yield Sound(frame.sample_rate, samples)
            return
        frame.pts = None
        self._graph.push(frame)
        self._waiting += 1
        if self._waiting == _FRAMES_AT_ONCE:
            self._waiting = 0
            yield from self._ready()

    def rest(self) -> Iterator[Sound]:
        """The sound that is still in the filters, which take no more."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._ready()

    def _ready(self) -> Iterator[Sound]:
        from av.error import BlockingIOError, EOFError

        while True:
            try:
                frame = self._graph.pull()
            except (BlockingIOError, EOFError):
                return
            # The frame's own memory, which lives as long as the array: `to_ndarray` copies it twice.
            samples: NDArray[np.float32] = np.frombuffer(frame.planes[0], np.float32, frame.samples * self._channels)
            yield Sound(self._rate, samples.reshape(-1, self._channels))


def kind_of(frame: Any) -> tuple[int, str, str]:
    """Rate, sample format and channel layout: what a resampler is made for."""
    return frame.sample_rate, frame.format.name, frame.layout.name


def _graph(frame: Any) -> Any:
    """FFmpeg's filters for such frames; None where it has no name for their channels."""
    from av.error import FFmpegError
    from av.filter import Graph

    rate, format, layout = kind_of(frame)
    graph = Graph()
    try:
        filters = [
            graph.add_abuffer(sample_rate=rate, format=format, layout=layout, time_base=Fraction(1, rate)),
            graph.add("aformat", "sample_fmts=flt"),
            graph.add("asetnsamples", f"n={_BLOCK_SAMPLES * max(rate // SAMPLE_RATE, 1)}:p=0"),
            graph.add("abuffersink"),
        ]
        for one, following in pairwise(filters):
            one.link_to(following)
        graph.configure()
    except (FFmpegError, ValueError) as error:
        logger.debug("FFmpeg has no filters for %s channels", layout, exc_info=error)
        return None
    return graph
