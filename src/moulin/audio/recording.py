"""A recording, decoded block by block: mono, at one rate, on its own time axis, with warnings of what was not right.

    recording = Recording("call.mp4", Selection(channels="left"))
    for block in recording:  # float32 [n], or Skip where no audio is for a long time
        ...
    recording.warnings  # what is missing or was chosen: complete when there are no more blocks

PCM in containers (WAV, AIFF, AU, CAF, W64, …) and narrow FLAC are read by libsndfile (soundfile), all else by FFmpeg
(PyAV, the extra `media`), which is faster and keeps time stamps; each takes over what the other refuses, and FFmpeg
what libsndfile leaves. Files that are several one after another are read one after another (`parts`). Only one block is
in memory at a time, two seconds of it where there are several channels.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

from moulin.arrays import Floats
from moulin.audio.declared import lacks_its_end, missing_bytes
from moulin.audio.decoded import CannotDecodeError, Gap, PyAvMissingError, Sound, check_rate, described
from moulin.audio.decoders import Decoder
from moulin.audio.faults import Faults
from moulin.audio.ffmpeg import audio_tracks
from moulin.audio.mono import Mono
from moulin.audio.part import BinaryFile, Part, PartView
from moulin.audio.parts import parts_of
from moulin.audio.patience import Patience, PatientFile
from moulin.audio.pcm import RawFormat, pcm_frames
from moulin.audio.sample_format import format_doubt
from moulin.audio.selection import MIX, Selection
from moulin.audio.source_file import Source, open_source
from moulin.audio.timeline import Skip
from moulin.audio.waveform import SAMPLE_RATE
from moulin.errors import AudioError, AudioTooLong, MoulinError

_PCM_BLOCK = 16_384
_SKIP_SEC = 10.0
"""What a gap that is skipped counts against `max_duration_sec`: the model hears what is behind it by itself, however
short that is."""

_MOST_REFUSALS = 100
"""Parts of a file that may be undecodable: each costs the opening of two decoders."""

_MOST_SINGLE = 64
"""Channels and tracks that are heard each by itself: every one takes a pass through the file."""

logger = logging.getLogger(__name__)


class Recording(Iterator["Floats | Skip"]):
    """Blocks of one track, mixed or of one channel. The file is opened with the first block and closed after the last.

    `next` raises AudioError when no audio can be decoded, also after seconds of work without any, and AudioTooLong
    beyond `max_duration_sec` of samples and silence, so that a small file that unpacks to hours cannot fill the memory.
    """

    def __init__(
        self,
        source: Source,
        selection: Selection = MIX,
        *,
        sample_rate: int = SAMPLE_RATE,
        max_duration_sec: float | None = None,
        name: str | None = None,
    ) -> None:
        """`selection` must be single (`selected` makes single ones). `name` replaces the path in error messages."""
        self._faults = Faults()
        # A generator without a reference to self, so that dropping the last reference closes the file.
        self._blocks = _blocks(source, selection, sample_rate, max_duration_sec, name, self._faults)

    def __next__(self) -> Floats | Skip:
        return next(self._blocks)

    @classmethod
    def of_pcm(cls, data: bytes, raw: RawFormat, selection: Selection = MIX, *, name: str = "PCM data") -> Recording:
        """A recording of samples without a header; `raw` says what they are."""
        recording = cls(b"", selection, name=name)
        recording._blocks = _pcm_blocks(name, data, raw, selection, recording._faults)
        return recording

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is missing, damaged or was chosen, in sentences without the recording's name."""
        return self._faults.warnings

    def close(self) -> None:
        self._blocks.close()


def selected(source: Source, selection: Selection, *, name: str | None = None) -> tuple[Selection, ...]:
    """The single selections that `selection` stands for: one for each channel (`each`) of each track (`all`).

    An open file is read. Raises AudioError.
    """
    if selection.is_single:
        return (selection,)
    path_name, file = open_source(source)
    name = path_name if name is None else name
    with file:
        tracks = [selection.track]
        try:
            if selection.track == "all":
                count = max(_track_count(name, file), 1)
                _check_single(name, count, "tracks")
                tracks = [str(number + 1) for number in range(count)]
            if selection.channels != "each":
                return tuple(Selection(selection.channels, track) for track in tracks)
            counts = [_channel_count(name, file, Selection(track=track).track_number) for track in tracks]
            _check_single(name, sum(counts), "channels")
        except MoulinError:
            raise
        except Exception as error:
            raise unexpected(name, error) from error
    return tuple(
        Selection(str(channel + 1), track)
        for track, count in zip(tracks, counts, strict=True)
        for channel in range(count)
    )


def _check_single(name: str, count: int, what: str) -> None:
    if count > _MOST_SINGLE:
        raise AudioError(
            f"{name} has {count} {what}, expected at most {_MOST_SINGLE} that are heard each by itself",
            hint="choose one by its number",
        )


def opened_recordings(
    source: Source, selection: Selection = MIX, *, max_duration_sec: float | None = None, name: str | None = None
) -> list[tuple[Selection, Recording]]:
    """The recordings that `selection` stands for, each with its single selection. Raises AudioError."""
    if not isinstance(source, str | Path | bytes) and not selection.is_single:
        source = source.read()
    return [
        (single, Recording(source, single, max_duration_sec=max_duration_sec, name=name))
        for single in selected(source, selection, name=name)
    ]


def _track_count(name: str, file: BinaryFile) -> int:
    try:
        end = file.seek(0, io.SEEK_END)
        return audio_tracks(name, _view(file, _parts(file, end, Patience())[0], end))
    except (CannotDecodeError, PyAvMissingError):
        return 1


def _channel_count(name: str, file: BinaryFile, track: int | None) -> int:
    sounds = _sounds(name, file, SAMPLE_RATE, track, Faults())
    try:
        return next((sound.samples.shape[1] for sound in sounds if isinstance(sound, Sound)), 1)
    finally:
        sounds.close()


def _blocks(
    source: Source,
    selection: Selection,
    sample_rate: int,
    max_duration_sec: float | None,
    name: str | None,
    faults: Faults,
) -> Generator[Floats | Skip]:
    path_name, file = open_source(source)
    name = path_name if name is None else name
    with file:
        try:
            check_rate(sample_rate, "output audio")
            mono = Mono(name, selection.channel_number, sample_rate, faults)
            limit = None if max_duration_sec is None else max_duration_sec * sample_rate + 1
            made = 0
            for block in mono.blocks(_sounds(name, file, sample_rate, selection.track_number, faults)):
                made += round(_SKIP_SEC * sample_rate) if isinstance(block, Skip) else len(block)
                if limit is not None and made > limit:
                    raise AudioTooLong(f"{name} is too long: expected at most {max_duration_sec:g} s of audio")
                yield block
        except MoulinError:
            raise
        except Exception as error:
            raise unexpected(name, error) from error


def _pcm_blocks(
    name: str, data: bytes, raw: RawFormat, selection: Selection, faults: Faults
) -> Generator[Floats | Skip]:
    if selection.track_number not in (None, 1):
        raise AudioError(f"{name} is one track, expected track {selection.track_number}")
    try:
        samples = pcm_frames(data, raw)
        if doubt := format_doubt(data, raw.encoding, raw.channels):
            faults.add(doubt)
        mono = Mono(name, selection.channel_number, SAMPLE_RATE, faults)
        blocks = (samples[at : at + _PCM_BLOCK] for at in range(0, len(samples), _PCM_BLOCK))
        yield from mono.blocks(Sound(raw.sample_rate, block) for block in blocks)
    except MoulinError:
        raise
    except Exception as error:
        raise unexpected(name, error) from error


def _sounds(name: str, file: BinaryFile, sample_rate: int, track: int | None, faults: Faults) -> Generator[Sound | Gap]:
    """All parts of a file, one after another. A part that cannot be decoded is a fault where another one can."""
    end = file.seek(0, io.SEEK_END)
    if end == 0:
        raise AudioError(f"{name} is empty (0 bytes), expected audio")
    patience = Patience()
    parts = _parts(file, end, patience)
    refusals: list[AudioError] = []
    total_sec = 0.0
    decoder = Decoder(name, sample_rate, track, faults, patience)
    for number, part in enumerate(parts):
        decoded_sec = 0.0
        try:
            for sound in decoder.sounds(_view(file, part, end), is_first=number == 0):
                decoded_sec += sound.seconds
                yield sound
                patience.renew()
            if patience.ended is not None:
                faults.damaged(str(patience.ended))
        except AudioError as error:
            if isinstance(error, AudioTooLong) or len(parts) == 1:
                raise
            refusals.append(error)
            faults.add(f"bytes {part.begin} to {part.end} of {end} cannot be decoded ({error.message})")
        total_sec += decoded_sec
        with suppress(CannotDecodeError):
            _note_missing(PatientFile(file, patience), part, decoded_sec, faults)
        if len(refusals) == _MOST_REFUSALS:
            faults.add(f"what is behind byte {part.end} was not tried: too much cannot be decoded")
            break
    if not total_sec and len(refusals) in (len(parts), _MOST_REFUSALS):
        raise refusals[0]
    if not total_sec and faults.loss:  # else it is whole and has no samples
        raise AudioError(f"{name} has no audio: the file is damaged or cut short ({faults.loss})")


def _parts(file: BinaryFile, end: int, patience: Patience) -> list[Part]:
    """The parts of `file`; one where looking for them takes too long."""
    try:
        return parts_of(PatientFile(file, patience))
    except CannotDecodeError:
        patience.renew()
        return [Part(0, end)]


def _note_missing(file: BinaryFile, part: Part, decoded_sec: float, faults: Faults) -> None:
    if lacks_its_end(file, part):
        faults.damaged("the last page, block or packet is not whole")
    missing = missing_bytes(file, part)
    if missing and not faults.is_missing:
        if decoded_sec:
            faults.missing(decoded_sec * missing / (part.end - part.begin))
        else:
            faults.damaged(f"{missing:,} bytes that its header declares are missing")


def _view(file: BinaryFile, part: Part, end: int) -> BinaryFile:
    return file if (part.begin, part.end, part.changes) == (0, end, {}) else PartView(file, part)


def unexpected(name: str, error: Exception) -> AudioError:
    """An AudioError for an exception that no decoder documents. Its traceback goes to the log."""
    logger.debug("%s: decoding failed with an unexpected exception", name, exc_info=error)
    return AudioError(
        f"{name} cannot be decoded: the decoder failed with {described(error)}",
        hint="ffmpeg -i INPUT -ar 16000 OUTPUT.wav may convert it to a readable file",
    )
