"""Parts: complete or not there, in every format, found again by their ids, written again with other rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moulin.audio.selection import MIX, Selection
from moulin.bulk.output import job as jobs
from moulin.bulk.output.formats import FORMAT_NAMES, FORMATS, FormatName, subtitle_name
from moulin.bulk.output.job import Job
from moulin.bulk.output.manifest_ids import note_ids
from moulin.bulk.output.open_part import MAX_AGE_SEC, ChangedParts, OpenPart
from moulin.bulk.output.parts import WHOLE, PartFolder, Shard, parts_in, read_ids
from moulin.bulk.pending import pending_rows, recordings_by_id
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import RECORDINGS, failed_row, transcribed_row, transcribed_table
from moulin.errors import OptionsError
from moulin.transcript import Transcript, Word


def job(format: FormatName = "parquet", **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "model": "tiny",
        "model_sha256": "0" * 64,
        "engine": {},
        "decoding": {"beam": 4},
        "selection": {},
    }
    return Job(format, **(fields | changes))


def folder(to: Path, format: FormatName = "parquet", shard: str = "1/1") -> PartFolder:
    jobs.begin(to, job(format))
    return PartFolder(to, job(format), Shard.of(shard))


def recordings(*ids: str) -> Any:
    rows = [{"id": id, "path": f"{id}.wav", "offset_sec": 10.0 if id == "b" else None} for id in ids]
    return pa.Table.from_pylist(rows, RECORDINGS)


def heard(id: str, text: str = "A B") -> dict[str, Any]:
    words = tuple(Word(word, number * 0.5, number * 0.5 + 0.25, 0.75) for number, word in enumerate(text.split()))
    return transcribed_row(id, f"{id}.wav", Transcript(text, words, 3600.0))


def table(*rows: dict[str, Any]) -> Any:
    return transcribed_table(rows)


def ids_of(parts: PartFolder) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for _, ids in read_ids(parts.folder, FORMATS[parts.job.format]):
        for id, error in zip(ids.column("id").to_pylist(), ids.column("error").to_pylist(), strict=True):
            assert id not in found
            found[id] = error
    return found


@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_every_format_is_found_again_and_changed_row_by_row(tmp_path: Path, format: FormatName) -> None:
    parts = folder(tmp_path, format)
    of = recordings_by_id(recordings("a", "b", "c", "d"))
    rows = table(heard("a"), failed_row("b", "b.wav", "no"), heard("c", "ÄÖ 你好"), failed_row("d", "d.wav", "nor"))
    part = parts.write(rows, of)
    assert ids_of(parts) == {"a": None, "b": "no", "c": None, "d": "nor"}
    before = part.read_bytes()
    new = table(heard("b", "C"))
    parts.replace(part, new, of)
    assert ids_of(parts) == {"a": None, "b": None, "c": None, "d": "nor"}
    assert parts_in(tmp_path, part.suffix) == [part]
    assert part.read_bytes() != before
    assert not list((tmp_path / "_moulin").glob("*.tmp"))
    if format == "lhotse":
        lines = [json.loads(line) for line in part.read_text().splitlines()]
        assert lines[1]["start"] == 10.0
        assert lines[1]["alignment"]["word"] == [["C", 10.0, 0.25, 0.75]]
    elif format == "jsonl":
        lines = [json.loads(line) for line in part.read_text().splitlines()]
        assert lines[2]["text"] == "ÄÖ 你好"
        assert lines[3] == {"id": "d", "path": "d.wav", "error": "nor"}
    elif format == "srt":
        assert sorted(file.name for file in tmp_path.glob("*.srt")) == ["a.srt", "b.srt", "c.srt"]


@pytest.mark.needs("lhotse")
def test_lhotse_reads_its_supervisions(tmp_path: Path) -> None:
    from lhotse import SupervisionSet

    parts = folder(tmp_path, "lhotse")
    rows = table(heard("a"), failed_row("b", "b.wav", "no"))
    part = parts.write(rows, recordings_by_id(recordings("a", "b")))
    first, second = SupervisionSet.from_file(part)
    assert (first.text, first.duration, first.alignment["word"][1].symbol) == ("A B", 3600.0, "B")
    assert (second.text, second.custom["error"]) == ("", "no")


@pytest.mark.needs("datasets")
def test_datasets_reads_the_parts(tmp_path: Path) -> None:
    import datasets

    rows = table(heard("a"), failed_row("b", "b.wav", "no"))
    folder(tmp_path).write(rows, recordings_by_id(recordings("a", "b")))
    note_ids(tmp_path, rows.column("id"), WHOLE)
    assert datasets.load_dataset(str(tmp_path), split="train")["id"] == ["a", "b"]


def test_names_are_of_what_is_in_them(tmp_path: Path) -> None:
    one = job()
    assert one.part_name(["a", "b"]) == one.part_name(["b", "a"])
    assert one.part_name(["a", "b"]) != one.part_name(["ab"])
    for other in (job(model_sha256="1" * 64), job(decoding={"beam": 8}), job("jsonl")):
        assert other.part_name(["a"]).split(".")[0] != one.part_name(["a"]).split(".")[0]
    assert job(model="elsewhere").part_name(["a"]) == one.part_name(["a"])
    folder(tmp_path).write(table(heard("a")), recordings_by_id(recordings("a")))
    folder(tmp_path).write(table(heard("a")), recordings_by_id(recordings("a")))
    assert [part.name for part in parts_in(tmp_path, ".parquet")] == [one.part_name(["a"])]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (job("jsonl"), "another format: 'parquet', and not 'jsonl'"),
        (
            job(model_sha256="1" * 64, model="big"),
            r"another model: tiny \(000000000000\), and not big \(111111111111\)",
        ),
        (job(decoding={"beam": 8}), "another decoding: beam 4, and not beam 8"),
        (job(decoding={"beam": 4, "lm": "a"}), "another decoding: no lm, and not lm 'a'"),
    ],
)
def test_a_folder_holds_one_job(tmp_path: Path, other: Job, said: str) -> None:
    jobs.begin(tmp_path, job())
    jobs.begin(tmp_path, job(model="the same under another name"))
    with pytest.raises(OptionsError, match=said):
        jobs.begin(tmp_path, other)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for to in (tmp_path / "file", tmp_path / "file" / "to"):
        with pytest.raises(OptionsError, match=f"Expected a folder for parts, got {to}, which is or lies in a file"):
            jobs.begin(to, job())


def test_no_job(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="There is no job of moulin bulk in"):
        jobs.read(tmp_path)
    (tmp_path / "_moulin").mkdir()
    (tmp_path / "_moulin" / "job.json").write_text('{"format": "wax"}')
    with pytest.raises(OptionsError, match="is no description of a job"):
        jobs.read(tmp_path)


HOLDS = """
import sys, time
from pathlib import Path
from tests.bulk.output.test_parts import folder
with folder(Path(sys.argv[1]), shard=sys.argv[2]).owned():
    print("here", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("1/2", "Another process works on shard 1 of .*: 'process {other} on .*, since "),
        ("2/2", None),
        ("3/3", "works on 1-of-2 of .*, which is divided otherwise than into 3: 'process {other} on "),
    ],
)
def test_a_shard_has_one_owner(tmp_path: Path, shard: str, message: str | None) -> None:
    command = [sys.executable, "-c", HOLDS, str(tmp_path), "1/2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"here\n"
        if message is None:
            with folder(tmp_path, shard=shard).owned():
                pass
        else:
            named = message.format(other=other.pid)
            with pytest.raises(OptionsError, match=named), folder(tmp_path, shard=shard).owned():
                pass
        other.kill()
        other.wait()
    with folder(tmp_path, shard=shard).owned():
        pass


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    parts = folder(tmp_path)
    left = tmp_path / "_moulin" / "part-1.parquet.new.1-of-1.tmp"
    others = tmp_path / "_moulin" / "part-1.parquet.new.1-of-9.tmp"
    left.touch()
    others.touch()
    with parts.owned():
        assert not left.exists()
        assert others.exists()


def test_nothing_is_left_of_a_part_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = folder(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    open_part = OpenPart(parts, recordings_by_id(recordings("a")), part_sec=1)
    with pytest.raises(OSError, match="No space"):
        open_part.add(table(heard("a")))
    assert parts_in(tmp_path, ".parquet") == []
    assert not list((tmp_path / "_moulin").glob("*.tmp"))
    monkeypatch.undo()
    open_part.write()
    assert ids_of(parts) == {"a": None}


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    parts = folder(tmp_path)
    part = parts.write(table(heard("a")), recordings_by_id(recordings("a")))
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(OptionsError, match=rf"{part.name} is damaged"):
        ids_of(parts)


def test_a_part_is_written_when_it_is_full_or_old(tmp_path: Path) -> None:
    now = [0.0]
    ids = [str(number) for number in range(9)]
    parts = folder(tmp_path)
    part = OpenPart(parts, recordings_by_id(recordings(*ids)), part_sec=3 * 3600, clock=lambda: now[0])
    part.write()
    for id in ids[:4]:
        part.add(table(heard(id)))
    assert sorted(ids_of(parts)) == ids[:3]
    part.write_if_old()
    now[0] += MAX_AGE_SEC
    part.write_if_old()
    assert sorted(ids_of(parts)) == ids[:4]
    assert part.written == 2


def test_pending_rows(tmp_path: Path) -> None:
    parts = folder(tmp_path)
    all_rows = recordings("a", "b", "c", "d")
    of = recordings_by_id(all_rows)
    for rows in (table(heard("a"), failed_row("b", "b.wav", "no")), table(failed_row("c", "c.wav", "no"), heard("x"))):
        parts.write(rows, of)
    pending = pending_rows(all_rows, parts, MIX, retries=False)
    assert pending.rows.column("id").to_pylist() == ["d"]
    assert (pending.total, pending.done, pending.failed) == (4, 3, 2)
    again = pending_rows(all_rows, parts, Selection("left"), retries=True)
    assert again.rows.column("id").to_pylist() == ["b", "c"]
    assert again.rows.column("channels").to_pylist() == ["left", "left"]
    assert sorted(again.failed_in.values()) == [["b"], ["c"]]
    changed = ChangedParts(parts, of, again.failed_in)
    changed.add(table(heard("b")))
    assert ids_of(parts) == {"a": None, "b": None, "c": "no", "x": None}
    changed.add(table(failed_row("c", "c.wav", "still")))
    assert ids_of(parts) == {"a": None, "b": None, "c": "still", "x": None}
    assert changed.written == 2


def test_shards_share_out_all_rows_and_keep_runs_together(tmp_path: Path) -> None:
    plain = recordings(*"acdefghij")
    windows = [
        {"id": f"{path}{number}", "path": path, "offset_sec": float(number)} for path in "xyz" for number in range(3)
    ]
    for rows in (plain, pa.Table.from_pylist(windows, RECORDINGS)):
        found: list[str] = []
        for number in (1, 2, 3):
            parts = PartFolder(tmp_path / "empty", job(), Shard(number, 3))
            mine = pending_rows(rows, parts, MIX, retries=False).rows
            assert mine.num_rows == 3
            found += mine.column("id").to_pylist()
            if rows is not plain:
                assert len(set(mine.column("path").to_pylist())) == 1
        assert sorted(found) == sorted(rows.column("id").to_pylist())


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", ""])
def test_no_shard(text: str) -> None:
    with pytest.raises(OptionsError, match="Expected a shard as K/N"):
        Shard.of(text)


@pytest.mark.parametrize("id", ["a.wav", "a/b c/d.wav", "ä/b"])
def test_subtitles_are_named_by_ids(id: str) -> None:
    assert subtitle_name(id) == f"{id}.srt"


@pytest.mark.parametrize(
    "id",
    [
        *("../a", "/etc/passwd", "a/../../b", "", ".", "a//b", "a/", "\0", "a\nb", "x" * 300, "_moulin/a", ".a"),
        *("x/" * 1000 + "a", "a.srt/b", "part-1.parquet/a"),  # too long a path; names of files
    ],
)
def test_subtitles_stay_in_their_folder(id: str) -> None:
    name = subtitle_name(id)
    assert len(name) == 36
    assert "/" not in name
