"""The executor with real processes, some of which end over recordings."""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import moulin.bulk.local.executor as module
from moulin.bulk.local.channel import object_file
from moulin.bulk.local.child import Child
from moulin.bulk.local.executor import LocalExecutor
from moulin.bulk.local.settings import DecodingSettings, ExecutorSettings
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import RECORDINGS
from moulin.bulk.transcriber import Transcriber
from moulin.errors import EngineError
from tests.bundles import BUNDLES
from tests.conftest import Recording

TINY = BUNDLES / "conformer-offline"
ROOT = Path(__file__).parents[3]


class Kept:
    """All rows that came, by id: each once."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def add(self, transcribed: Any) -> None:
        for row in transcribed.to_pylist():
            assert row["id"] not in self.rows
            self.rows[row["id"]] = row

    def write_if_old(self) -> None: ...


def run(files: list[str], model: Path = TINY, *, decoders: int = 2, table_sec: float = 20.0) -> Kept:
    """Transcribe `files`. Descriptors of memory files that were left open would be memory that is never given back."""
    rows = [{"id": str(number), "path": file} for number, file in enumerate(files)]
    kept = Kept()
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    executor = LocalExecutor(ExecutorSettings((Transcriber(model),), decoders, DecodingSettings(table_sec=table_sec)))
    try:
        executor.start()
        assert executor.run(pa.Table.from_pylist(rows, RECORDINGS), kept)
    finally:
        executor.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    assert set(kept.rows) == {row["id"] for row in rows}
    return kept


@pytest.fixture(autouse=True)
def _from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def files(tmp_path: Path, recordings: list[Recording]) -> list[str]:
    """A dozen recordings, one of which crashes and one of which poisons."""
    copies = [str(recordings[number].file) for number in range(12)]
    for number, name in ((3, "crash.flac"), (7, "poison.flac")):
        shutil.copy(copies[number], tmp_path / name)
        copies[number] = str(tmp_path / name)
    return copies


def test_recordings_over_which_processes_end_fail_alone(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DECODER", "tests.bulk.local.crashing_decoder")
    monkeypatch.setattr(module, "ENGINE", "tests.bulk.local.crashing_engine")
    rows = run(files).rows
    assert {id: row["error"] for id, row in rows.items() if row["error"]} == {
        "3": f"{files[3]} cannot be decoded: the decoder crashed on it (SIGSEGV)",
        "7": f"The engine ended on {files[7]} (exit status 3)",
    }


def test_a_model_that_cannot_be_used_is_said_at_once(tmp_path: Path, files: list[str]) -> None:
    with pytest.raises(EngineError, match="There is no model at"):
        run(files, tmp_path / "none")


def test_processes_that_cannot_start_end_the_job(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DECODER", "moulin.no_such_module")
    with pytest.raises(EngineError, match="Processes end again and again"):
        run(files)


def test_recordings_are_decoded_while_the_model_loads(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ENGINE", "tests.bulk.local.waiting_engine")
    executor = LocalExecutor(ExecutorSettings((Transcriber(TINY),), 2, DecodingSettings(table_sec=20.0)))
    rows = pa.Table.from_pylist([{"id": file, "path": file} for file in files], RECORDINGS)
    with closing(executor):
        executor.start()
        assert not executor.run(rows, Kept(), lambda: executor.stop() if executor._ready else None)


def test_signals_to_all_processes_are_not_for_a_child_that_starts() -> None:
    """Ctrl-C in the second in which it imports would else leave tracebacks."""
    child = Child("tests.bulk.local.waiting_engine")
    for sent in (signal.SIGINT, signal.SIGTERM) * 3:
        os.kill(child.process_id, sent)
        time.sleep(0.05)
    child.send_object(object_file(None))
    assert select.select([child.channel], [], [], 1.0)[0] == [], "it has ended"
    child.kill()
    assert child.ended() == "SIGKILL"


def test_nothing_to_do() -> None:
    assert run([]).rows == {}
