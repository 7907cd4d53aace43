"""Failures by their reason, without the names of recordings."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.bulk.output.manifest_ids import note_ids, noted_ids
from moulin.bulk.output.parts import WHOLE, Shard
from moulin.bulk.pending import recordings_by_id
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import failed_row
from moulin.bulk.status import kind_of, status_of
from tests.bulk.output.test_parts import folder, heard, recordings, table


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("/a/b.wav does not exist, expected an audio file", "… does not exist, expected an audio file"),
        ("b.wav is empty (0 bytes), expected audio (hint: record again)", "… is empty (0 bytes), expected audio"),
        ("The engine ended on s3://bucket/b.wav (SIGKILL)", "The engine ended on … (SIGKILL)"),
        ("Recognition failed: out of memory", "Recognition failed: out of memory"),
    ],
)
def test_reasons(error: str, kind: str) -> None:
    assert kind_of(error, "b.wav") == kind


def test_a_reason_is_short_and_on_one_line() -> None:
    assert len(kind_of("x" * 1000 + "\n", "a")) <= 200


def test_rows_count_that_the_last_manifest_names(tmp_path: Path) -> None:
    parts = folder(tmp_path)
    for rows in (table(heard("a"), failed_row("b", "b.wav", "no")), table(failed_row("c", "c.wav", "nor"))):
        parts.write(rows, recordings_by_id(recordings("a", "b", "c")))
    before = status_of(tmp_path)
    assert (before.done, before.failed, before.missing, before.others) == (3, 2, None, 0)
    note_ids(tmp_path, pa.chunked_array([["a", "c"], ["d"]]), WHOLE)
    status = status_of(tmp_path)
    assert (status.recordings, status.done, status.failed, status.missing, status.others) == (3, 2, 1, 1, 1)
    assert dict(status.kinds) == {"nor": 1}
    note_ids(tmp_path, pa.chunked_array([["x"]]), Shard(2, 3))
    assert (status_of(tmp_path).missing, status_of(tmp_path).others) == (1, 3)


def test_ids_that_cannot_be_read_are_unknown(tmp_path: Path) -> None:
    folder(tmp_path)
    note_ids(tmp_path, pa.chunked_array([["a"]]), WHOLE)
    (file,) = (tmp_path / "_moulin").glob("*.ids")
    file.write_bytes(file.read_bytes()[:-9])
    assert noted_ids(tmp_path) is None
    assert status_of(tmp_path).missing is None
