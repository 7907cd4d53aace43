"""Arrow schemas of the three tables: recordings to transcribe, their decoded audio, and their transcripts.

One recording is one row in each, and is never split over tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.selection import Selection
from moulin.audio.waveform import SAMPLE_RATE, in_16_bits
from moulin.bulk.pyarrow_here import pa
from moulin.long_audio.cutter import Piece, Place
from moulin.transcript import PlacedWord, Transcript, Word

RECORDINGS: Any = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("offset_sec", pa.float64()),
        pa.field("window_sec", pa.float64()),
        pa.field("channels", pa.string()),
        pa.field("track", pa.string()),
        pa.field("recording", pa.string()),
    ]
)
"""Rows to transcribe; all but `id` and `path` may be missing or null.

`path` is a file or an address. `offset_sec` and `window_sec` are the part of the file to transcribe: from 0, to its
end. `channels` and `track` are those of `Selection`. `recording` is the id of a cut's recording in Lhotse's sense.
"""

_PIECE: Any = pa.struct(
    [
        pa.field("start_sec", pa.float64()),
        pa.field("channel", pa.int32()),
        pa.field("track", pa.int32()),
        pa.field("samples", pa.large_list(pa.int16())),
    ]
)

_SOUND: Any = [
    pa.field("clipped", pa.float64()),
    pa.field("level_db", pa.float64()),
    pa.field("decode_sec", pa.float64()),
]

DECODED: Any = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("pieces", pa.large_list(_PIECE)),
        pa.field("duration_sec", pa.float64()),
        pa.field("warnings", pa.list_(pa.string())),
        pa.field("error", pa.string()),
        *_SOUND,
    ]
)
"""Decoded recordings: all pieces with speech, int16 [n] at 16 kHz; `channel` and `track` are null in a mix. The last
columns are those of `Sound`."""

_WORD: Any = pa.struct(
    [
        pa.field("word", pa.string()),
        pa.field("start_sec", pa.float64()),
        pa.field("end_sec", pa.float64()),
        pa.field("confidence", pa.float64()),
        pa.field("channel", pa.int32()),
        pa.field("track", pa.int32()),
    ]
)

TRANSCRIBED: Any = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("words", pa.list_(_WORD)),
        pa.field("duration_sec", pa.float64()),
        pa.field("warnings", pa.list_(pa.string())),
        pa.field("error", pa.string()),
        pa.field("speech_sec", pa.float64()),
        pa.field("confidence", pa.float64()),
        *_SOUND,
    ]
)
"""Transcripts; `text` and `words` are null where `error` says why there are none. Times count from the row's beginning
(`offset_sec` in its file). `speech_sec` is the time that words cover, `confidence` the mean of the words', null without
words; the last columns are those of `Sound`."""

QUALITY = ("speech_sec", "confidence", "clipped", "level_db", "decode_sec")
"""The columns that say how good a row is and what it cost."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Figures of a recording's audio, all pieces together; None where there is no audio."""

    clipped: float | None = None
    """The share of samples at full scale: some in a thousand are heard as distortion."""
    level_db: float | None = None
    """The root of the mean square, in dB of full scale."""
    decode_sec: float | None = None
    """How long reading and decoding took."""


NO_SOUND = Sound()
_FULL_SCALE = 32767 / 32768


@dataclass(frozen=True, slots=True)
class RecordingRow:
    """A row of a table of recordings."""

    id: str
    path: str
    offset_sec: float = 0.0
    window_sec: float | None = None
    """None is to the end of the file."""
    channels: str | None = None
    track: str | None = None

    @property
    def is_whole(self) -> bool:
        return self.offset_sec == 0 and self.window_sec is None

    def selection(self) -> Selection:
        """Raises OptionsError for channels or a track that cannot be."""
        return Selection(self.channels or "mix", self.track)

    @property
    def audio(self) -> tuple[str, str | None, str | None]:
        """What rows have in common that are windows of the same audio."""
        return self.path, self.channels, self.track


def recording_rows(recordings: Any) -> Iterator[RecordingRow]:
    """The rows of a table of recordings."""
    known = [name for name in ("id", "path", "offset_sec", "window_sec", "channels", "track") if _has(recordings, name)]
    for values in zip(*(recordings.column(name).to_pylist() for name in known), strict=True):
        fields = dict(zip(known, values, strict=True))
        fields["offset_sec"] = fields.get("offset_sec") or 0.0
        yield RecordingRow(**fields)


def _has(table: Any, name: str) -> bool:
    return name in table.column_names


_MOST_CLIPPED = 1.12
"""1 dB above full scale: so far lossy codecs overshoot, and their peaks are cut off. What is louder was scaled wrongly,
and is made quieter instead."""

LOUD = "louder than 16 bits hold: made quieter"
"""The warning of a recording with samples far above 1."""


class DecodedRows:
    """Decoded recordings on their way into a table. One is begun, its pieces are added, and it is ended."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew. A table that was made keeps its memory."""
        self._samples = bytearray()  # grows in place: a list of arrays would need a second copy at the end
        self._piece_ends: list[int] = []
        self._starts: list[float] = []
        self._channels: list[int | None] = []
        self._tracks: list[int | None] = []
        self._row_ends: list[int] = []
        self._rows: list[tuple[str, str, float | None, list[str], str | None, Sound]] = []
        self._begin_row()

    def _begin_row(self) -> None:
        self._is_loud = False
        self._peak = 0.0
        """The greatest magnitude in the last piece so far: what is louder than 16 bits hold is made quieter by it."""
        self._row_samples, self._row_clipped, self._row_energy = 0, 0, 0.0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def seconds(self) -> float:
        """Seconds of audio so far."""
        return len(self._samples) / 2 / SAMPLE_RATE

    def add_piece(self, piece: Piece) -> None:
        """Append a piece of the recording that was begun."""
        self._peak = 0.0
        self._add_samples(piece.waveform)
        self._piece_ends.append(len(self._samples) // 2)
        self._starts.append(piece.start_sec)
        self._channels.append(piece.place.channel if piece.place else None)
        self._tracks.append(piece.place.track if piece.place else None)

    def add_block(self, block: Piece, *, goes_on: bool) -> None:
        """Append a block that begins a piece or, where it `goes_on`, makes the last one longer."""
        if goes_on:
            self._add_samples(block.waveform)
            self._piece_ends[-1] = len(self._samples) // 2
        else:
            self.add_piece(block)

    def _add_samples(self, waveform: Floats) -> None:
        peak = float(max(waveform.max(), -waveform.min())) if len(waveform) else 0.0
        self._row_samples += len(waveform)
        self._row_energy += float(np.dot(waveform, waveform))
        if peak >= _FULL_SCALE:
            self._row_clipped += int(np.count_nonzero(np.abs(waveform) >= _FULL_SCALE))
        self._peak = max(self._peak, peak)
        if self._peak > _MOST_CLIPPED:
            waveform = waveform / np.float32(self._peak)
            self._is_loud = True
        self._samples += in_16_bits(waveform).data.cast("B")

    def end(
        self, row: RecordingRow, duration_sec: float, warnings: Iterable[str], decode_sec: float | None = None
    ) -> None:
        """The pieces since the last end are all of `row`."""
        said = [*warnings, *([LOUD] if self._is_loud else [])]
        self._close(row, duration_sec, said, None, self._sound(decode_sec))

    def fail(self, row: RecordingRow, error: str) -> None:
        """`row` has no audio: the pieces since the last end are dropped."""
        pieces = self._row_ends[-1] if self._row_ends else 0
        for column in (self._piece_ends, self._starts, self._channels, self._tracks):
            del column[pieces:]
        del self._samples[2 * self._piece_ends[-1] if self._piece_ends else 0 :]
        self._close(row, None, [], error, NO_SOUND)

    def _sound(self, decode_sec: float | None) -> Sound:
        if not self._row_samples:
            return Sound(decode_sec=decode_sec)
        power = self._row_energy / self._row_samples
        level_db = 10 * math.log10(power) if power else None
        return Sound(self._row_clipped / self._row_samples, level_db, decode_sec)

    def _close(
        self, row: RecordingRow, duration_sec: float | None, warnings: list[str], error: str | None, sound: Sound
    ) -> None:
        self._rows.append((row.id, row.path, duration_sec, warnings, error, sound))
        self._row_ends.append(len(self._piece_ends))
        self._begin_row()

    def table(self) -> Any:
        """A table of the schema DECODED; the rows are complete."""
        samples = pa.LargeListArray.from_arrays(
            pa.array([0, *self._piece_ends], pa.int64()), pa.array(np.frombuffer(self._samples, np.int16))
        )
        columns = [
            pa.array(self._starts, pa.float64()),
            pa.array(self._channels, pa.int32()),
            pa.array(self._tracks, pa.int32()),
            samples,
        ]
        pieces = pa.LargeListArray.from_arrays(
            pa.array([0, *self._row_ends], pa.int64()), pa.StructArray.from_arrays(columns, fields=list(_PIECE))
        )
        ids, paths, durations, warnings, errors, sounds = zip(*self._rows, strict=True) if self._rows else ([],) * 6
        figures = [[getattr(sound, field.name) for sound in sounds] for field in _SOUND]
        return pa.table(
            [list(ids), list(paths), pieces, list(durations), list(warnings), list(errors), *figures], schema=DECODED
        )


def failed_table(recordings: Any, error: Callable[[str], str]) -> Any:
    """A table of the schema DECODED with an error for each of a table of recordings; `error` makes it of the path."""
    failed = DecodedRows()
    for row in recording_rows(recordings):
        failed.fail(row, error(row.path))
    return failed.table()


@dataclass(frozen=True, slots=True)
class DecodedRecording:
    """A row of a table of decoded audio; the samples are views of the table's memory."""

    id: str
    path: str
    pieces: list[tuple[Piece, NDArray[np.int16]]]
    """Each with its samples; the waveform of the `Piece` is empty."""
    duration_sec: float
    warnings: list[str]
    error: str | None
    sound: Sound


def decoded_recordings(table: Any) -> list[DecodedRecording]:
    """The rows of a table of decoded audio."""
    rows: list[DecodedRecording] = []
    for batch in table.to_batches():
        lists = batch.column("pieces")
        structs = lists.values
        samples = structs.field("samples")
        values = samples.values.to_numpy(zero_copy_only=True)
        bounds = samples.offsets.to_numpy().tolist()
        starts = structs.field("start_sec").to_numpy().tolist()
        channels, tracks = structs.field("channel").to_pylist(), structs.field("track").to_pylist()
        ends = lists.offsets.to_numpy().tolist()
        names = ("id", "path", "duration_sec", "warnings", "error", *(field.name for field in _SOUND))
        others = (batch.column(name).to_pylist() for name in names)
        for row, (id_, path, duration_sec, warnings, error, *sound) in enumerate(zip(*others, strict=True)):
            numbers = range(ends[row], ends[row + 1])
            pieces = [
                (
                    Piece(round(starts[number] * SAMPLE_RATE), _NONE, _place(channels[number], tracks[number])),
                    values[bounds[number] : bounds[number + 1]],
                )
                for number in numbers
            ]
            rows.append(DecodedRecording(id_, path, pieces, duration_sec or 0.0, warnings or [], error, Sound(*sound)))
    return rows


_NONE = np.zeros(0, np.float32)


def _place(channel: int | None, track: int | None) -> Place | None:
    return None if channel is None and track is None else Place(channel, track)


def transcribed_table(rows: Sequence[dict[str, Any]]) -> Any:
    """A table of the schema TRANSCRIBED of rows by `transcribed_row` and `failed_row`."""
    return pa.Table.from_pylist(list(rows), schema=TRANSCRIBED)


def transcribed_row(id: str, path: str, transcript: Transcript, sound: Sound = NO_SOUND) -> dict[str, Any]:
    """A row with a transcript."""
    words = transcript.words
    return {
        "id": id,
        "path": path,
        "text": transcript.text,
        "words": [word.to_dict() for word in words],
        "duration_sec": transcript.duration_sec,
        "warnings": list(transcript.warnings),
        "error": None,
        "speech_sec": sum(word.end_sec - word.start_sec for word in words),
        "confidence": sum(word.confidence for word in words) / len(words) if words else None,
        "clipped": sound.clipped,
        "level_db": sound.level_db,
        "decode_sec": sound.decode_sec,
    }


def failed_row(id: str, path: str, error: str) -> dict[str, Any]:
    """A row with an error in place of a transcript."""
    return {"id": id, "path": path, "warnings": [], "error": error}


def transcript_of(row: dict[str, Any]) -> Transcript:
    """The transcript in a row without an error."""
    words = tuple(
        Word(word["word"], word["start_sec"], word["end_sec"], word["confidence"])
        if word.get("channel") is None and word.get("track") is None
        else PlacedWord(
            word["word"], word["start_sec"], word["end_sec"], word["confidence"], word["channel"], word["track"]
        )
        for word in row["words"] or ()
    )
    return Transcript(row["text"] or "", words, row["duration_sec"] or 0.0, tuple(row["warnings"] or ()))
