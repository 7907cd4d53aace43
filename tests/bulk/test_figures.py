"""Figures of a job, and their page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moulin.bulk.figures import LISTED, figures_of
from moulin.bulk.output import job as jobs
from moulin.bulk.output.formats import FORMAT_NAMES, FormatName
from moulin.bulk.output.job import Job
from moulin.bulk.output.manifest_ids import note_ids
from moulin.bulk.output.parts import WHOLE, PartFolder
from moulin.bulk.pending import recordings_by_id
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import (
    RECORDINGS,
    DecodedRows,
    RecordingRow,
    Sound,
    decoded_recordings,
    failed_row,
    transcribed_row,
    transcribed_table,
)
from moulin.evaluate.pages.bulk_job import bulk_document
from moulin.evaluate.pages.html import page
from moulin.long_audio.cutter import Piece
from moulin.transcript import Transcript, Word

HOSTILE = '<b>"&'


def row(id: str, confidence: float = 0.5, clipped: float = 0.0, decode_sec: float = 0.1, *said: str) -> dict[str, Any]:
    words = (Word("A", 0.0, 10.0, confidence),)
    return transcribed_row(id, f"{id}.wav", Transcript("A", words, 60.0, said), Sound(clipped, -20.0, decode_sec))


@pytest.fixture(params=FORMAT_NAMES)
def job(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Three parts, of an hour, the next, and four hours later."""
    format: FormatName = request.param
    described = Job(format, "tiny", "0" * 64, {}, {}, {})
    jobs.begin(tmp_path, described)
    folder = PartFolder(tmp_path, described)
    parts = [
        [row("a", 0.9), row("b", 0.2, 0.5, 7.0, "/x/b.wav is cut off"), failed_row("c", "c.wav", "/x/c.wav is empty")],
        [row(f"n{number}", 0.6, 0.002 * (number == 3), number / 100) for number in range(40)],
        [row(HOSTILE, 0.1, 0.0, 3.0), transcribed_row("silent", "s.wav", Transcript("", (), 5.0))],
    ]
    begun = jobs.begun_at(tmp_path)
    for rows, hours in zip(parts, (1, 2, 6), strict=True):
        of = pa.Table.from_pylist([{"id": one["id"], "path": one["path"]} for one in rows], RECORDINGS)
        table = transcribed_table(rows)
        part = folder.write(table, recordings_by_id(of))
        os.utime(part, (begun + hours * 3600,) * 2)
    named = ["a", "b", "c", HOSTILE, "silent", *(f"n{number}" for number in range(45))]
    note_ids(tmp_path, pa.array(named), WHOLE)
    return tmp_path


def test_sums_and_lists(job: Path) -> None:
    figures = figures_of(job)
    assert (figures.status.done, figures.status.failed, figures.status.missing) == (45, 1, 5)
    assert figures.audio_sec == pytest.approx(43 * 60 + 5)
    assert figures.speech_sec == pytest.approx(43 * 10)
    assert figures.words_confidence == pytest.approx((0.9 + 0.2 + 40 * 0.6 + 0.1) / 43)
    assert figures.clipped == 2
    assert dict(figures.warnings) == {"… is cut off": 1}
    assert [(one.id, one.value) for one in figures.slowest[:3]] == [("b", 7.0), (HOSTILE, 3.0), ("n39", 0.39)]
    assert len(figures.slowest) == LISTED
    assert [one.id for one in figures.least_confident[:2]] == [HOSTILE, "b"]
    assert [(one.id, one.value) for one in figures.most_clipped] == [("b", 0.5), ("n3", 0.002)]


def test_throughput_counts_idle_time(job: Path) -> None:
    points = figures_of(job).throughput()
    assert [hours for hours, _ in points] == pytest.approx([2.0, 4.0, 6.0])
    seconds = [times * 2 * 3600 for _, times in points]
    assert seconds == pytest.approx([120, 40 * 60, 65])  # a part counts in the span that it begins


def test_the_page_is_whole_and_escaped(job: Path) -> None:
    shown = page(bulk_document(figures_of(job), HOSTILE))
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown
    assert "<svg" in shown
    assert "… is empty" in shown
    assert "5 recordings of the last run" in shown


def test_clipping_and_level() -> None:
    rows = DecodedRows()
    square = np.where(np.arange(16_000) % 2, 0.5, -0.5).astype(np.float32)
    loud = square.copy()
    loud[:160] = 1.0
    for id, samples in (("square", square), ("loud", loud), ("silence", square * 0), ("none", square[:0])):
        rows.add_piece(Piece(0, samples))
        rows.end(RecordingRow(id, id), 1.0, (), 0.25)
    found = {one.id: one.sound for one in decoded_recordings(rows.table())}
    assert found["square"].clipped == 0.0
    assert found["square"].level_db == pytest.approx(20 * np.log10(0.5))
    assert found["loud"].clipped == pytest.approx(0.01)
    assert found["silence"] == Sound(0.0, None, 0.25)
    assert found["none"] == Sound(None, None, 0.25)
