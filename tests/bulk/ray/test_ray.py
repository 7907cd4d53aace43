"""`moulin bulk --executor ray` on 8 logical CPUs: an actor and the command are killed, and the job is resumed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from moulin.bulk.local.settings import DecodingSettings
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.ray.plan import RayChoice
from moulin.bulk.schema import RECORDINGS
from moulin.bulk.transcriber import Transcriber
from moulin.errors import EngineError
from moulin.models.open_recognizer import open_recognizer
from tests.bulk.local.test_executor import Kept
from tests.cli.command import TIMEOUT_SEC, eventually, moulin
from tests.cli.test_bulk import TINY, expect_all, has_parts, manifest, rows, running
from tests.conftest import Recording

pytestmark = [pytest.mark.slow, pytest.mark.needs("ray")]

COPIES = 10


def processes_below(parent: int) -> list[tuple[int, str]]:
    """Process ids and command lines of all descendants."""
    children: dict[int, list[tuple[int, str]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it has ended
        children.setdefault(above, []).append((int(folder.name), line))
    found, waiting = [], [parent]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += [pid for pid, _ in below]
    return found


def actors_of(cluster: subprocess.Popen[bytes]) -> list[int]:
    return [
        pid for pid, line in processes_below(cluster.pid) if line.startswith("ray::") and "TranscribedBatch" in line
    ]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`ray start --block` with 8 logical CPUs, in a session of its own, and its address."""
    port = free_port()
    home = tmp_path_factory.mktemp("home")
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.1", "--num-cpus=8", "--include-dashboard=false", "--disable-usage-stats"]
    command += [f"--object-store-memory={256 << 20}"]
    environ = {**os.environ, "HOME": str(home)}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environ, start_new_session=True)
    try:
        assert eventually(lambda: "--block" in (home / "log").read_text() or process.poll() is not None, TIMEOUT_SEC)
        yield process, f"127.0.0.1:{port}"
    finally:
        for pid in (process.pid, *(pid for pid, _ in processes_below(process.pid))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(TIMEOUT_SEC)


def free_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def test_an_actor_and_the_command_are_killed_and_each_recording_is_there_once(
    recordings: list[Recording], tmp_path: Path, cluster: tuple[subprocess.Popen[bytes], str]
) -> None:
    process, address = cluster
    with open_recognizer(TINY) as recognizer:
        heard = [recognizer.transcribe([recording.waveform])[0] for recording in recordings]
    expected = [replace(recording, heard=said) for recording, said in zip(recordings, heard, strict=True)]
    source = manifest(recordings, tmp_path / "many.jsonl", COPIES)
    to = tmp_path / "texts"
    flags = ("--executor", "ray", "--ray-address", address, "--threads", 2)
    with running(source, to, *flags, model=TINY) as command:
        assert has_parts(to, 1, command)
        before = actors_of(process)
        assert len(before) == 3
        os.kill(before[0], signal.SIGKILL)
        assert eventually(lambda: bool(set(actors_of(process)) - set(before)), TIMEOUT_SEC)  # started again
        count = len(list(to.glob("part-*")))
        assert has_parts(to, count + 2, command)
        os.killpg(command.pid, signal.SIGKILL)
    assert 0 < len(rows(to)) < COPIES * len(recordings)
    assert eventually(lambda: not actors_of(process), TIMEOUT_SEC)  # Ray ends what nobody wants
    with running(source, to, *flags, model=TINY) as command:
        assert command.wait(TIMEOUT_SEC) == 0
    expect_all(to, expected, COPIES)


def test_what_a_cluster_cannot_do_is_said(
    recordings: list[Recording], tmp_path: Path, cluster: tuple[subprocess.Popen[bytes], str]
) -> None:
    source = manifest(recordings, tmp_path / "many.jsonl", 1)
    run = (
        "bulk",
        source,
        "--to",
        tmp_path / "texts",
        "--model",
        TINY,
        "--executor",
        "ray",
        "--ray-address",
        cluster[1],
    )
    said = moulin(*run, "--gpus", 1).expect(1).err
    assert "Expected 1 GPU in Ray's cluster, got none" in said
    assert "Expected 10 CPUs in Ray's cluster" in moulin(*run, "--threads", 9).expect(1).err
    assert not (tmp_path / "texts").exists()


def test_a_model_that_workers_cannot_use(recordings: list[Recording], cluster: tuple[object, str]) -> None:
    from moulin.bulk.ray.executor import RayExecutor, RaySettings

    settings = RaySettings(Transcriber("/no/model"), DecodingSettings(30.0, 60.0), RayChoice(cluster[1]))
    executor = RayExecutor(settings)
    rows = pa.Table.from_pylist([{"id": "a", "path": str(recordings[0].file)}], RECORDINGS)
    with closing(executor):
        executor.start()
        with pytest.raises(EngineError, match="There is no model at /no/model") as raised:
            executor.run(rows, Kept())
    assert raised.value.hint


def test_a_cluster_of_its_own_leaves_nothing_behind(recordings: list[Recording], tmp_path: Path) -> None:
    """Where Ray counts two CPUs: one for the model and one that decodes. Nothing is written to home."""
    source, to, home = (tmp_path / name for name in ("m.jsonl", "texts", "home"))
    home.mkdir()
    manifest(recordings, source, 1)
    flags = ("--to", to, "--model", TINY, "--executor", "ray", "--progress", "none")
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as short:  # Ray's sockets take no long paths
        environ = {"HOME": str(home), "TMPDIR": short}
        moulin("bulk", source, *flags, environ=environ).expect(0)
        assert not list(Path(short).iterdir())
    assert not list(home.iterdir())
    assert len(rows(to)) == len(recordings)
    assert "Nothing is missing" in moulin("bulk", source, *flags[:4], "--progress", "none").expect(0).err
