"""`moulin bulk` as a person runs it, killed in every way and run again: each recording once, with the usual text."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moulin.bulk.manifests.manifest import read_recordings
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.status import status_of
from moulin.demo.files import DEMO_MODEL
from moulin.models.open_recognizer import open_recognizer
from tests.bundles import BUNDLES
from tests.conftest import Recording

from .command import MOULIN, TIMEOUT_SEC, Finished, alive, eventually, moulin, moulin_here

TINY = BUNDLES / "conformer-offline"
COPIES = 3
LONG = 20
"""Copies for a job that is not done before it is stopped."""
PART_HOURS = 0.01
"""36 seconds of audio."""


def command(source: Path, to: Path, *more: object, model: Path = DEMO_MODEL) -> list[str]:
    flags = ["--to", to, "--model", model, "--part-hours", PART_HOURS, "--decoders", 2, "--progress", "none"]
    return [MOULIN, "bulk", *map(str, [source, *flags, *more])]


def bulk(source: Path, to: Path, *more: object, model: Path = DEMO_MODEL) -> Finished:
    return moulin(*command(source, to, *more, model=model)[1:])


def refused(source: Path, to: Path, *more: object, model: Path = DEMO_MODEL) -> Finished:
    """Of what ends before any process is started: in this process."""
    return moulin_here(*command(source, to, *more, model=model)[1:]).expect(1)


@contextmanager
def running(source: Path, to: Path, *more: object, model: Path = DEMO_MODEL) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command(source, to, *more, model=model),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def manifest(recordings: list[Recording], file: Path, copies: int = COPIES) -> Path:
    with file.open("w") as lines:
        for copy in range(copies):
            for number, recording in enumerate(recordings):
                lines.write(json.dumps({"id": f"{copy}-{number}", "audio": str(recording.file)}) + "\n")
    return file


@pytest.fixture(scope="module")
def many(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest that names each of the 14 recordings three times: 5.6 minutes of audio."""
    return manifest(recordings, tmp_path_factory.mktemp("many") / "many.jsonl")


@pytest.fixture(scope="module")
def tiny(recordings: list[Recording]) -> list[Recording]:
    """The recordings with what a small model in fp32 says, which takes a seventh of the time."""
    with open_recognizer(TINY) as recognizer:
        heard = [recognizer.transcribe([recording.waveform])[0] for recording in recordings]
    return [replace(recording, heard=said) for recording, said in zip(recordings, heard, strict=True)]


def rows(to: Path) -> dict[str, dict[str, Any]]:
    """All rows of all parts by id, each of which is there once."""
    import pyarrow.parquet

    found: dict[str, dict[str, Any]] = {}
    for part in sorted(to.glob("part-*.parquet")):
        for row in pyarrow.parquet.ParquetFile(part).read().to_pylist():
            assert row["id"] not in found
            found[row["id"]] = row
    return found


def expect_all(to: Path, recordings: list[Recording], copies: int = COPIES) -> None:
    found = rows(to)
    assert len(found) == copies * len(recordings)
    expect_texts(found, recordings)
    assert not list((to / "_moulin").glob("*.tmp"))


def expect_texts(found: dict[str, dict[str, Any]], recordings: list[Recording]) -> None:
    for id, row in found.items():
        assert row["text"] == recordings[int(id.partition("-")[2])].text, id


def has_parts(to: Path, least: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait for so many parts; returns whether the process still runs."""
    assert eventually(lambda: len(list(to.glob("part-*"))) >= least or process.poll() is not None, TIMEOUT_SEC)
    return process.poll() is None


def none_alive(processes: list[int]) -> bool:
    return not any(map(alive, processes))


def children(parent: int, module: str = "") -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and module in (process / "cmdline").read_text():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_processes_that_are_killed_are_replaced(many: Path, recordings: list[Recording], tmp_path: Path) -> None:
    with running(many, tmp_path) as process:
        for victim in ("decoding_process", "engine_process"):
            assert has_parts(tmp_path, 1, process)
            killed = children(process.pid, victim)
            assert killed
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        _, err = process.communicate(timeout=TIMEOUT_SEC)
    assert process.returncode == 0, err.decode()
    expect_all(tmp_path, recordings)


def test_a_job_that_is_killed_goes_on(many: Path, recordings: list[Recording], tmp_path: Path) -> None:
    for who, least in (("parent", 1), ("group", 3)):
        with running(many, tmp_path) as process:
            assert has_parts(tmp_path, least, process)
            family = children(process.pid)
            if who == "group":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
        assert eventually(partial(none_alive, family))
    assert len(rows(tmp_path)) > 0
    bulk(many, tmp_path).expect(0)
    expect_all(tmp_path, recordings)


def test_a_job_that_is_stopped_writes_what_it_has(recordings: list[Recording], tmp_path: Path) -> None:
    long, to, done = manifest(recordings, tmp_path / "long.jsonl", LONG), tmp_path / "to", 0
    for sent, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        with running(long, to, "--part-hours", "100", "--progress", "json") as process:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line)["done"] > done:
                    break
            # As a terminal and as Slurm do: to all processes of the group.
            os.killpg(process.pid, sent)
            _, err = process.communicate(timeout=TIMEOUT_SEC)
        assert process.returncode == status, err.decode()
        assert b"Traceback" not in err
        before, done = done, len(rows(to))
        assert before < done < LONG * len(recordings)
    expect_texts(rows(to), recordings)


def test_a_full_disk(many: Path, tiny: list[Recording], tmp_path: Path) -> None:
    to, kept = tmp_path / "to", tmp_path / "kept"
    to.mkdir()
    run = " ".join(command(many, to, model=TINY))
    script = f"""
        mount -t tmpfs -o size=40k x {to}
        if {run} 2>{tmp_path}/first; then exit 3; fi
        if {run} 2>{tmp_path}/second; then exit 4; fi
        ls {to} > {tmp_path}/listed
        mount -o remount,size=10m {to}
        {run}
        cp -r {to} {kept}
    """
    if subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "x", to], capture_output=True).returncode:
        pytest.skip("mount namespaces are not allowed here")
    done = subprocess.run(["unshare", "--mount", "sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("first", "second"):
        said = (tmp_path / name).read_text()
        assert re.search(
            f"The folder {to} lacks room: No space left on device, [0-9]+ KiB free\n  hint: make room", said
        )
        assert "Traceback" not in (tmp_path / name).read_text()
    assert (tmp_path / "listed").read_text().count("part-") > 0
    expect_all(kept, tiny)


def test_shards_at_the_same_time(many: Path, tiny: list[Recording], tmp_path: Path) -> None:
    with (
        running(many, tmp_path, "--shard", "1/2", model=TINY) as first,
        running(many, tmp_path, "--shard", "2/2", model=TINY) as second,
    ):
        for process in (first, second):
            _, err = process.communicate(timeout=TIMEOUT_SEC)
            assert process.returncode == 0, err.decode()
    expect_all(tmp_path, tiny)
    assert "Nothing is missing" in bulk(many, tmp_path, model=TINY).expect(0).err


def damaged(folder: Path, good: Path) -> dict[str, Callable[[Path], object]]:
    content = good.read_bytes()
    files: dict[str, Callable[[Path], object]] = {
        "empty.wav": Path.touch,
        "noise.mp3": lambda file: file.write_bytes(np.random.default_rng(1).bytes(5000)),
        "pipe.wav": os.mkfifo,
        "away.wav": lambda file: file.symlink_to("/no/such/file"),
    }
    for name, make in files.items():
        make(folder / name)
    (folder / "cut.flac").write_bytes(content[: len(content) // 2])
    (folder / "ä b'\n.flac").write_bytes(content)
    (folder / "deep").mkdir()
    (folder / "deep" / "good.flac").write_bytes(content)
    return files


def test_a_folder_of_damaged_files(tmp_path: Path, recordings: list[Recording]) -> None:
    source, to = tmp_path / "source", tmp_path / "to"
    source.mkdir()
    files = damaged(source, recordings[0].file)
    done = bulk(source, to, model=TINY).expect(0)
    assert f"4 of them failed (moulin bulk status {to} says why)" in done.err
    found = rows(to)
    assert {id for id, row in found.items() if row["error"]} == set(files)
    assert found["deep/good.flac"]["text"] == found["ä b'\n.flac"]["text"]
    assert found["cut.flac"]["warnings"]
    status = json.loads(moulin_here("bulk", "status", to, "--json").expect(0).out)
    assert (status["done"], status["failed"], status["missing"], status["recordings"]) == (7, 4, 0, 7)
    assert status["failures"]["… does not exist, expected an audio file"] == 1
    shown = moulin_here("bulk", "status", to).expect(0).out
    assert "failed   4" in shown
    page = tmp_path / "job.html"
    assert moulin_here("bulk", "status", to, "--html", page).expect(0).out.strip() == str(page)
    assert "deep/good.flac" in page.read_text()

    # Two of the files become good; the parts keep their names, and every recording its one row.
    parts = sorted(to.glob("part-*"))
    for name in ("empty.wav", "away.wav"):
        (source / name).unlink()
        shutil.copy(recordings[0].file, source / name)
    shutil.copy(recordings[0].file, source / "new.flac")
    again = bulk(source, to, "--retry-failed", model=TINY).expect(0)
    assert "2 of them failed" in again.err
    assert "leaves what was never tried" in again.err
    assert sorted(to.glob("part-*")) == parts
    found = rows(to)
    assert len(found) == 7
    assert found["away.wav"]["text"] == found["deep/good.flac"]["text"]

    # Files that went away are no longer counted, but for one line.
    for name in ("noise.mp3", "away.wav"):
        (source / name).unlink()
    bulk(source, to, model=TINY).expect(0)
    shown = moulin_here("bulk", "status", to).expect(0).out
    assert "done     6 in" in shown
    assert "failed   1" in shown
    assert "missing  0" in shown
    assert "others   2 in parts that the last run's manifest does not name" in shown


@pytest.mark.parametrize("format", ["jsonl", "lhotse", "srt"])
def test_formats_are_resumed(format: str, recordings: list[Recording], tmp_path: Path) -> None:
    manifest, to = tmp_path / "m.jsonl", tmp_path / "to"

    def write(count: int) -> None:
        lines = [json.dumps({"id": f"calls/{n}", "audio": str(recordings[n].file)}) for n in range(count)]
        manifest.write_text("\n".join(lines))

    write(3)
    done = bulk(manifest, to, "--format", format, "--progress", "lines", model=TINY).expect(0)
    steps = [f"Reading {TINY}", f"Reading {manifest}", "Looking which of 3 recordings are done"]
    assert done.err.splitlines()[: len(steps)] == steps
    assert done.err.splitlines()[len(steps)].startswith("0 of 3 recordings")
    write(5)
    assert status_of(to).done == 3
    bulk(manifest, to, "--format", format, model=TINY).expect(0)
    assert status_of(to).done == 5
    assert len(list(to.glob("part-*"))) == 2
    assert len(list(to.glob("calls/*.srt"))) == (5 if format == "srt" else 0)
    other = refused(manifest, to, "--format", format, "--method", "modified_beam_search", model=TINY)
    assert "holds a job with another decoding" in other.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--shard", "5/4"], "Expected a shard as K/N"),
        (["--format", "csv"], "Expected a format of parquet, jsonl, lhotse, srt"),
        (["--device", "cuda:0,cuda:0"], "Expected every device once"),
        (["--channels", "middle"], "Expected channels to be"),
        (["--gpus", "2"], "--gpus is an option of --executor ray"),
        (["--executor", "ray", "--device", "cuda:1"], "Expected --device cpu or cuda with --executor ray"),
        (["--executor", "ray", "--ray-address", "ray://head:10001"], "HOST:PORT or auto"),
    ],
)
def test_wrong_flags(more: list[str], message: str, many: Path, tmp_path: Path) -> None:
    assert message in refused(many, tmp_path, *more).err
    assert not list(tmp_path.iterdir())


def test_no_manifest_and_no_job(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "no.jsonl", tmp_path / "to").err
    assert not (tmp_path / "to").exists()
    assert "There is no job of moulin bulk in" in moulin_here("bulk", "status", tmp_path).expect(1).err


def test_twins_are_refused_before_any_work(recordings: list[Recording], tmp_path: Path) -> None:
    manifest = tmp_path / "m.txt"
    manifest.write_text(f"{recordings[0].file}\n{recordings[0].file}\n")
    done = bulk(manifest, tmp_path / "to").expect(1)
    assert "is in row 1 of" in done.err
    assert not (tmp_path / "to").exists()


def test_help() -> None:
    alone = moulin_here("bulk")
    assert "moulin bulk" in alone.out + alone.err
    shown = moulin_here("bulk", "--help").expect(0).out
    assert "status" in shown
    assert "--retry-failed" in moulin_here("bulk", "run", "--help").expect(0).out


@pytest.mark.slow
def test_ten_thousand_files(recordings: list[Recording], tmp_path: Path) -> None:
    """Killed and run again, over and over: every id once, with its text; and memory that does not grow."""
    manifest = tmp_path / "m.jsonl"
    with manifest.open("w") as lines:
        for number in range(10_000):
            audio = str(recordings[number % 14].file)
            lines.write(json.dumps({"id": str(number), "audio": audio, "offset": 0.5, "duration": 1.0}) + "\n")
    assert read_recordings(manifest).num_rows == 10_000
    peaks: list[int] = []
    for after_sec in (15, 25, 20, None):
        with running(manifest, tmp_path / "to") as process:
            if after_sec is not None:
                time.sleep(after_sec)
                if process.poll() is None:
                    family = [process.pid, *children(process.pid)]
                    peaks.append(max(map(peak_bytes, family)))
                    os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=TIMEOUT_SEC)
    found = rows(tmp_path / "to")
    assert len(found) == 10_000
    alike = [Counter(row["text"] for id, row in found.items() if int(id) % 14 == clip) for clip in range(14)]
    usual = sum(texts.most_common(1)[0][1] for texts in alike)
    assert usual > 0.98 * len(found)
    assert max(peaks) < 1 << 30


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_the_seam_needs_no_command(recordings: list[Recording]) -> None:
    """As docs/bulk.md shows it."""
    from moulin.bulk.decode import decode
    from moulin.bulk.transcriber import Transcriber

    table = pa.table({"id": ["a"], "path": [str(recordings[0].file)]})
    (heard,) = [Transcriber(DEMO_MODEL)(decoded) for decoded in decode(table)]
    assert heard.column("text").to_pylist() == [recordings[0].text]
