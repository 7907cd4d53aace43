"""Decoded audio into a table and out of it again, sample by sample."""

from __future__ import annotations

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import (
    DECODED,
    LOUD,
    RECORDINGS,
    TRANSCRIBED,
    DecodedRows,
    RecordingRow,
    decoded_recordings,
    failed_row,
    recording_rows,
    transcribed_row,
    transcribed_table,
    transcript_of,
)
from moulin.long_audio.cutter import Piece, Place
from moulin.transcript import PlacedWord, Transcript, Word


def noise(samples: int, seed: int = 0) -> Floats:
    return (np.random.default_rng(seed).integers(-9000, 9000, samples) / 32768).astype(np.float32)


def row(id: str) -> RecordingRow:
    return RecordingRow(id, f"{id}.wav")


def test_pieces_come_back_sample_by_sample() -> None:
    rows = DecodedRows()
    rows.add_piece(Piece(0, noise(1601)))
    rows.add_piece(Piece(40_001, noise(7, 1), Place(2, None)))
    rows.end(row("two"), 3.5, ["the end is missing"])
    rows.end(row("none"), 0.25, ())
    rows.add_piece(Piece(3, noise(0)))
    rows.end(row("empty"), 0.0, ())
    table = rows.table()
    assert table.schema == DECODED
    # As a part of a larger table, whose offsets do not begin at 0.
    for part in (table, pa.concat_tables([table, table]).slice(3), table.slice(0, 2)):
        two, none, *empty = decoded_recordings(part)
        assert [(piece.start_samples, piece.place) for piece, _ in two.pieces] == [(0, None), (40_001, Place(2, None))]
        assert np.array_equal(two.pieces[0][1] / 32768, noise(1601))
        assert np.array_equal(two.pieces[1][1] / 32768, noise(7, 1))
        assert (two.id, two.path, two.duration_sec, two.warnings) == ("two", "two.wav", 3.5, ["the end is missing"])
        assert none.pieces == []
        assert all(len(one.pieces[0][1]) == 0 for one in empty)


def test_a_failure_leaves_no_audio() -> None:
    rows = DecodedRows()
    rows.add_piece(Piece(0, noise(10)))
    rows.end(row("good"), 1.0, ())
    rows.add_piece(Piece(0, noise(20, 1)))
    rows.add_piece(Piece(99, noise(30, 2)))
    rows.fail(row("bad"), "cut off")
    rows.add_piece(Piece(0, noise(5, 3)))
    rows.end(row("last"), 2.0, ())
    good, bad, last = decoded_recordings(rows.table())
    assert (bad.error, bad.pieces) == ("cut off", [])
    assert np.array_equal(good.pieces[0][1] / 32768, noise(10))
    assert np.array_equal(last.pieces[0][1] / 32768, noise(5, 3))
    assert rows.seconds == pytest.approx(15 / 16000)


def test_an_overshoot_is_cut_and_a_wrong_scale_is_made_quieter() -> None:
    rows = DecodedRows()
    rows.add_piece(Piece(0, np.array([1.05, -1.1, 0.5], np.float32)))
    rows.end(row("codec"), 1.0, ())
    rows.add_piece(Piece(0, np.array([4.0, -2.0, 0.0], np.float32)))
    rows.end(row("scaled"), 1.0, ["another"])
    codec, scaled = decoded_recordings(rows.table())
    assert codec.pieces[0][1].tolist() == [32767, -32768, 16384]
    assert codec.warnings == []
    assert scaled.pieces[0][1].tolist() == [32767, -16384, 0]
    assert scaled.warnings == ["another", LOUD]


def test_rows_need_an_id_and_a_path_alone() -> None:
    table = pa.table({"id": ["a", "b"], "path": ["a.wav", "b.wav"], "more": [1, 2]})
    assert list(recording_rows(table)) == [row("a"), row("b")]
    full = pa.Table.from_pylist([{"id": "a", "path": "a.wav", "offset_sec": 1.5, "channels": "left"}], RECORDINGS)
    assert list(recording_rows(full)) == [RecordingRow("a", "a.wav", 1.5, None, "left")]


def test_transcripts_come_back() -> None:
    heard = Transcript("A B", (Word("A", 0.1, 0.2, 0.5), PlacedWord("B", 0.3, 0.4, 0.75, 1, None)), 1.5, ("short",))
    table = transcribed_table([transcribed_row("x", "x.wav", heard), failed_row("y", "y.wav", "no")])
    assert table.schema == TRANSCRIBED
    good, bad = table.to_pylist()
    assert transcript_of(good) == heard
    assert (bad["text"], bad["words"], bad["error"]) == (None, None, "no")
