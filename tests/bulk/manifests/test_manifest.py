"""Manifests in every form to the same rows; what is wrong with one is said with its place."""

from __future__ import annotations

import gzip
import json
import math
import os
import time
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from moulin.bulk.manifests.manifest import read_recordings
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import RECORDINGS
from moulin.errors import OptionsError


def rows(source: Path) -> list[dict[str, Any]]:
    table = read_recordings(source)
    assert table.schema == RECORDINGS
    return [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]


def jsonl(folder: Path, *entries: Any, name: str = "m.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


def test_jsonl(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        {"audio": "/a.wav", "text": "said", "duration": 3.5, "nested": {"any": [1]}},
        {"audio_filepath": "b.wav", "id": "b", "offset": 1, "duration": 2.5, "channels": "left"},
        {"path": "s3://bucket/c.flac", "id": "c", "track": "2", "offset": 4.0},
    )
    assert rows(file) == [
        {"id": "/a.wav", "path": "/a.wav"},
        {"id": "b", "path": f"{tmp_path}/b.wav", "offset_sec": 1.0, "window_sec": 2.5, "channels": "left"},
        {"id": "c", "path": "s3://bucket/c.flac", "track": "2", "offset_sec": 4.0},
    ]
    packed = tmp_path / "m.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert rows(packed) == rows(file)


@pytest.mark.parametrize("ids", [(1, 2), (1, "two"), ("one", 2), (1, 1 << 70), (1, None)])
def test_ids_that_are_numbers_in_jsonl(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    file = jsonl(tmp_path, *({"audio": f"/{id}.wav", "id": id, "channels": 1} for id in ids))
    assert rows(file) == [
        {"id": f"/{id}.wav" if id is None else str(id), "path": f"/{id}.wav", "channels": "1"} for id in ids
    ]


def test_the_first_id_is_no_number(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"audio": "/a.wav", "id": 1}, {"audio": "/b.wav", "id": "two"})
    assert rows(file) == [{"id": "1", "path": "/a.wav"}, {"id": "two", "path": "/b.wav"}]


def test_parquet(tmp_path: Path) -> None:
    import pyarrow.parquet

    table = pa.table({"id": [7, 8], "audio": ["/a.wav", "b.wav"], "offset": [None, 2], "more": [[1], [2]]})
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    assert rows(tmp_path / "m.parquet") == [
        {"id": "7", "path": "/a.wav"},
        {"id": "8", "path": f"{tmp_path}/b.wav", "offset_sec": 2.0},
    ]


def test_relative_paths_are_beside_the_manifest_or_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside, here = tmp_path / "beside", tmp_path / "here"
    beside.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    manifest = jsonl(beside, {"audio": "a.wav"})
    listed = beside / "list.txt"
    listed.write_text("a.wav\n\nhttps://a.b/c.wav\n")
    (here / "a.wav").touch()
    assert rows(manifest)[0]["path"] == "a.wav"
    assert rows(listed)[0]["path"] == "a.wav"
    (beside / "a.wav").touch()
    assert rows(manifest)[0]["path"] == f"{beside}/a.wav"
    assert [row["path"] for row in rows(listed)] == ["a.wav", "https://a.b/c.wav"]
    (here / "a.wav").unlink()
    assert [row["path"] for row in rows(listed)] == [f"{beside}/a.wav", "https://a.b/c.wav"]


def test_a_folder(tmp_path: Path) -> None:
    for name in ("b/2.wav", "a.FLAC", "b/1.mp3", "notes.txt", ".hidden/x.wav", "b/._1.mp3", "b/_moulin/job.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    skipped: list[str] = []
    table = read_recordings(tmp_path, skipped.append)
    assert table.column("id").to_pylist() == ["a.FLAC", "b/1.mp3", "b/2.wav"]
    assert table.column("path").to_pylist() == [str(tmp_path / id) for id in table.column("id").to_pylist()]
    assert skipped == [f"skipped in {tmp_path}: 1 file without the suffix of audio"]


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    Path(str(tmp_path).encode().decode() + "/\udcff.wav").touch()
    with pytest.raises(OptionsError, match="not UTF-8"):
        read_recordings(tmp_path)


def test_kaldi(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("one /a/1.wav\ntwo 2.wav\n")
    assert rows(tmp_path) == [{"id": "one", "path": "/a/1.wav"}, {"id": "two", "path": "2.wav"}]
    (tmp_path / "2.wav").touch()
    assert rows(tmp_path)[1] == {"id": "two", "path": f"{tmp_path}/2.wav"}
    (tmp_path / "segments").write_text("one-a one 1.5 2.75\ntwo-a two 0 -1\n")
    assert rows(tmp_path / "wav.scp") == [
        {"id": "one-a", "path": "/a/1.wav", "offset_sec": 1.5, "window_sec": 1.25, "recording": "one"},
        {"id": "two-a", "path": f"{tmp_path}/2.wav", "offset_sec": 0.0, "recording": "two"},
    ]


@pytest.mark.parametrize(
    ("wav_scp", "segments", "message"),
    [
        ("a sox x |\n", None, "got the command 'sox x |'"),
        ("a x.ark:123\n", None, "got a place in an archive: 'x.ark:123'"),
        ("a\n", None, "got nothing"),
        ("a x.wav\na y.wav\n", None, "'a' on line 2 of .* is already on line 1"),
        ("a x.wav\n", "s b 0 1\n", "'b', which .* names on line 1, is not in"),
        ("a x.wav\n", "s a 0\n", "Expected RECORDING START END in seconds on line 1"),
    ],
)
def test_kaldi_with_faults(tmp_path: Path, wav_scp: str, segments: str | None, message: str) -> None:
    (tmp_path / "wav.scp").write_text(wav_scp)
    if segments:
        (tmp_path / "segments").write_text(segments)
    with pytest.raises(OptionsError, match=message):
        read_recordings(tmp_path)


def recording(id: str, *channels: int, **more: Any) -> dict[str, Any]:
    source = {"type": "file", "channels": list(channels or (0,)), "source": f"/audio/{id}.wav"}
    return {"id": id, "sources": [source], "sampling_rate": 16000, "num_samples": 160000, "duration": 10.0, **more}


def cut(id: str, of: dict[str, Any], **more: Any) -> dict[str, Any]:
    fields = {"start": 0.0, "duration": 10.0, "channel": 0, "supervisions": [], "type": "MonoCut"}
    return {"id": id, **fields, "recording": of, **more}


def test_lhotse(tmp_path: Path) -> None:
    two = recording("two", 0, 1)
    file = jsonl(
        tmp_path,
        cut("all", recording("one")),
        cut("part", recording("one"), start=2.5, duration=1.5),
        cut("right", two, channel=1),
        cut("both", two, channel=[0, 1], type="MultiCut"),
        name="cuts.jsonl",
    )
    (odd,) = rows(jsonl(tmp_path, cut("odd", recording("one"), start=math.nan), name="odd.jsonl"))
    assert math.isnan(odd["offset_sec"])  # for its row to say so
    one, of_two = {"path": "/audio/one.wav", "recording": "one"}, {"path": "/audio/two.wav", "recording": "two"}
    assert rows(file) == [
        {"id": "all", **one},
        {"id": "part", **one, "offset_sec": 2.5, "window_sec": 1.5},
        {"id": "right", **of_two, "channels": "2"},
        {"id": "both", **of_two},
    ]
    assert rows(tmp_path) == rows(file)
    whole = jsonl(tmp_path, recording("one"), recording("two", 0, 1), name="recordings.jsonl")
    expected = [{"id": "one", "path": "/audio/one.wav"}, {"id": "two", "path": "/audio/two.wav"}]
    assert rows(whole) == expected
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps([recording("one"), recording("two", 0, 1)], indent=1))
    assert rows(listed) == expected


@pytest.mark.needs("lhotse")
def test_lhotse_as_lhotse_writes_it(tmp_path: Path) -> None:
    from lhotse import CutSet, MonoCut, Recording, RecordingSet
    from lhotse.audio import AudioSource

    source = AudioSource("file", [0], "/audio/one.wav")
    one = Recording("one", [source], 16000, 160000, 10.0)
    RecordingSet.from_recordings([one]).to_file(tmp_path / "recordings.jsonl.gz")
    assert rows(tmp_path / "recordings.jsonl.gz") == [{"id": "one", "path": "/audio/one.wav"}]
    cuts = CutSet.from_cuts([MonoCut("c", 1.0, 2.0, 0, recording=one)])
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    assert rows(tmp_path / "cuts.jsonl.gz") == [
        {"id": "c", "path": "/audio/one.wav", "offset_sec": 1.0, "window_sec": 2.0, "recording": "one"}
    ]
    cuts.perturb_speed(1.1).to_file(tmp_path / "faster.jsonl")
    with pytest.raises(OptionsError, match="recording with transforms"):
        read_recordings(tmp_path / "faster.jsonl")
    cuts.pad(5.0).to_file(tmp_path / "padded.jsonl")
    with pytest.raises(OptionsError, match="a MixedCut"):
        read_recordings(tmp_path / "padded.jsonl")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"id": "x", "type": "MonoCut", "start": 0}, "features and no recording"),
        (cut("x", {"id": "r"}), "Expected a cut or a recording of Lhotse's on line 2"),
        (cut("x", recording("r", 0, 1, 2), channel=[0, 1], type="MultiCut"), r"the channels \[0, 1\] of \[0, 1, 2\]"),
        ({"id": "x", "sources": [{"type": "command", "channels": [0], "source": "sox"}]}, "type 'command'"),
        ([1], "Expected a cut or a recording"),
        (recording("\ud800"), "Expected a cut or a recording of Lhotse's on line 2"),
    ],
)
def test_lhotse_that_is_no_file(tmp_path: Path, entry: Any, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        read_recordings(jsonl(tmp_path, cut("all", recording("one")), entry, name="cuts.jsonl"))


def test_twins_are_named(tmp_path: Path) -> None:
    entries = [{"audio": f"/{number}.wav", "id": str(number % 7)} for number in range(9)]
    with pytest.raises(OptionsError) as caught:
        read_recordings(jsonl(tmp_path, *entries))
    assert caught.value.message == (
        f"The id '0' is in row 1 of {tmp_path}/m.jsonl ('/0.wav') and in row 8 ('/7.wav'); "
        "1 more ids occur several times"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no recordings"),
        ('{"audio": "/a.wav"}\n{"text": "x"}\n', "Expected one of audio, audio_filepath, path in row 2"),
        ('{"audio": "/a.wav"}\nnothing\n', "on line 2 of .*, got 'nothing'"),
        ('{"audio": "/a.wav"}\n{"audio": ["/b.wav"]}\n', "on line 2"),
        ('{"text": "x"}\n', "Expected one of audio, audio_filepath, path in row 1"),
        ("a.wav\nb.wav\n", "on line 1 of .*, got 'a.wav'"),
        ('{"audio": "\\ud800.wav"}\n', "on line 1 of"),
        ('{"audio":' + "[" * 100_000 + "]" * 100_000 + "}", "on line 1 of"),
        ('[{"audio": "/a.wav"}]', "entry 1 of .*, got "),
        ('{"audio": "/a.wav", "offset": "soon"}\n', "on line 1"),
    ],
)
def test_jsonl_with_faults(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "m.jsonl"
    file.write_text(text)
    with pytest.raises(OptionsError, match=message):
        read_recordings(file)


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\n \n\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz", "m.txt", "m.csv", "m.tsv", "wav.scp"])
def test_text_as_programs_of_windows_write_it(tmp_path: Path, name: str, mark: str, ends: str) -> None:
    lines = {
        "m.txt": ["/ü.wav", "/b.wav"],
        "m.csv": ["path,id,x", "/ü.wav,/ü.wav,1", '"/b.wav",,'],
        "m.tsv": ["id\tpath", "/ü.wav\t/ü.wav", "\t/b.wav"],
        "wav.scp": ["/ü.wav /ü.wav", "/b.wav /b.wav"],
    }.get(name, ['{"audio": "/ü.wav"}', '{"audio": "/b.wav", "id": ""}'])
    if name.endswith("sv"):  # a line of spaces is a row there
        ends = ends.replace(" ", "")
    content = (mark + ends.join(lines) + ends).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert rows(tmp_path / name) == [{"id": "/ü.wav", "path": "/ü.wav"}, {"id": "/b.wav", "path": "/b.wav"}]


def test_csv(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_text('id,audio,offset,duration,channels\n1,"a,b.wav",0.5,2,1\n02,/c.wav,,,\n')
    assert rows(file) == [
        {"id": "1", "path": f"{tmp_path}/a,b.wav", "offset_sec": 0.5, "window_sec": 2.0, "channels": "1"},
        {"id": "02", "path": "/c.wav"},
    ]
    for text, message in (
        ("/a.wav\n/b.wav\n", "Expected a column of audio, audio_filepath, path in .*, got /a.wav"),
        ("id;audio\n1;/a.wav\n", "got id;audio .*separated by commas, in .*tsv by tabs"),
        ("audio,offset\n/a.wav,soon\n", "is no table: .*soon.*are seconds"),
        ("audio,id\n/a.wav\n", "is no table: .*Expected 2 columns, got 1"),
        ("audio\n", "names no recordings"),
        ("", "is no table: Empty CSV file"),
    ):
        file.write_text(text)
        with pytest.raises(OptionsError, match=message):
            read_recordings(file)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"audio": [{"path": "/a.wav", "bytes": b"x"}]}, "Expected text in the column audio of .*, got struct"),
        ({"path": ["/a.wav"], "offset": ["soon"]}, "Expected numbers in the column offset of .*, got string"),
        ({"path": ["/a.wav"], "id": [b"\xff"]}, "Expected text in the column id of .*, got binary"),
        ({"path": [None]}, "in row 1 of .*, got none"),
        ({"path": pa.array([], pa.string())}, "names no recordings"),
        ({"x": [1]}, "Expected a column of audio, audio_filepath, path in"),
    ],
)
def test_parquet_with_faults(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "m.parquet")
    with pytest.raises(OptionsError, match=message):
        read_recordings(tmp_path / "m.parquet")


def test_whole_numbers_beside_missing_ones(tmp_path: Path) -> None:
    """pandas writes a column of whole numbers in which one is missing as floats."""
    file = jsonl(tmp_path, {"audio": "/a.wav", "track": 2.0, "channels": 1.0}, {"audio": "/b.wav"})
    assert rows(file)[0] == {"id": "/a.wav", "path": "/a.wav", "track": "2", "channels": "1"}


def test_numbers_that_are_missing(tmp_path: Path) -> None:
    """As Python's json and programs without nulls write them."""
    import pyarrow.parquet

    missing = {"audio": "/a.wav", "id": math.nan, "offset": math.nan, "duration": math.nan, "channels": math.nan}
    file = jsonl(tmp_path, missing, {"audio": "/b.wav", "offset": 1.0, "duration": math.nan})
    expected = [{"id": "/a.wav", "path": "/a.wav"}, {"id": "/b.wav", "path": "/b.wav", "offset_sec": 1.0}]
    assert rows(file) == expected
    for kind in (pa.float64(), pa.float32()):
        numbers = {"offset": [math.nan, 1.0], "duration": [math.nan] * 2, "channels": [math.nan] * 2}
        columns = {"audio": ["/a.wav", "/b.wav"], **{name: pa.array(one, kind) for name, one in numbers.items()}}
        pyarrow.parquet.write_table(pa.table(columns), tmp_path / "m.parquet")
        assert rows(tmp_path / "m.parquet") == expected


def test_a_line_of_ten_megabytes(tmp_path: Path) -> None:
    long = "x" * 10_000_000
    file = jsonl(tmp_path, {"audio": f"/{long}.wav", "id": "long"}, {"audio": "/b.wav", "text": long})
    assert [row["id"] for row in rows(file)] == ["long", "/b.wav"]
    (tmp_path / "m.txt").write_text(f"{long}\nb.wav\n")  # the first is looked for beside the list
    assert [len(row["id"]) for row in rows(tmp_path / "m.txt")] == [len(long), 5]


def test_texts_that_look_alike_are_different_ids(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "/é.wav") for form in ("NFC", "NFD"))
    found = rows(jsonl(tmp_path, {"audio": composed}, {"audio": apart}))
    assert [row["path"] for row in found] == [composed, apart]


def test_twins_across_cuts(tmp_path: Path) -> None:
    cuts = [cut(id, recording(of), start=start, duration=1.0) for id, of, start in (("x", "one", 0), ("x", "two", 5))]
    with pytest.raises(OptionsError, match=r"The id 'x' is in row 1 of .*one\.wav'\) and in row 2 \('/audio/two"):
        read_recordings(jsonl(tmp_path, *cuts, name="cuts.jsonl"))


def test_a_manifest_from_a_pipe(tmp_path: Path) -> None:
    """It is read more than once: a pipe would lose its beginning without a word."""
    os.mkfifo(tmp_path / "m.jsonl")
    with pytest.raises(OptionsError, match="no regular file"):
        read_recordings(tmp_path / "m.jsonl")


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="does not exist"):
        read_recordings(tmp_path / "no.jsonl")
    (tmp_path / "m.parquet").write_bytes(b"not one")
    with pytest.raises(OptionsError, match="is no manifest in parquet"):
        read_recordings(tmp_path / "m.parquet")
    (tmp_path / "a.wav").write_bytes(bytes(range(256)))
    with pytest.raises(OptionsError, match="is a recording, expected JSONL"):
        read_recordings(tmp_path / "a.wav")
    (tmp_path / "a.wav").rename(tmp_path / "a.list")
    with pytest.raises(OptionsError, match="not text in UTF-8"):
        read_recordings(tmp_path / "a.list")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OptionsError, match="no audio in the folder"):
        read_recordings(tmp_path / "folder")


@pytest.mark.slow
def test_a_million_rows_are_read_by_arrow(tmp_path: Path) -> None:
    """No line goes through Python: that would take several times the CPU time of writing them."""
    import pyarrow.parquet

    table = pa.table(
        {
            "id": pa.array([f"call-{number}" for number in range(1_000_000)]),
            "audio": pa.array([f"/data/{number % 1000}/call-{number}.wav" for number in range(1_000_000)]),
        }
    )
    file = tmp_path / "m.jsonl"
    begun = time.process_time()
    with file.open("w") as lines:
        for row in table.to_pylist():
            lines.write(json.dumps(row) + "\n")
    written = time.process_time() - begun
    pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    for source in (file, tmp_path / "m.parquet"):
        begun = time.process_time()
        assert read_recordings(source).num_rows == 1_000_000
        assert time.process_time() - begun < 2 * written
