"""A run: what it keeps when its executor fails, and the processes that it asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest

from moulin.bulk.executor import Output
from moulin.bulk.run import BulkRun, run_bulk
from moulin.bulk.schema import failed_row, transcribed_table
from moulin.demo.files import DEMO_MODEL
from moulin.errors import EngineError

LISTENER: Any = SimpleNamespace(step=lambda _: None, state=lambda _: None, skipped=lambda _: None)


class FailsBehindTheFirst:
    """An executor that is lost when one of the recordings has come."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def close(self) -> None: ...

    def run(self, pending: Any, output: Output, _on_look: Callable[[], None] = lambda: None) -> bool:
        row = pending.slice(0, 1).to_pylist()[0]
        output.add(transcribed_table([failed_row(row["id"], row["path"], "x")]))
        raise EngineError("The cluster is gone")


def test_what_has_come_is_written_when_the_executor_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("/a.wav\n/b.wav\n")
    monkeypatch.setattr(BulkRun, "executor", lambda *_: FailsBehindTheFirst())
    run = BulkRun(listed, tmp_path / "to", DEMO_MODEL)
    with pytest.raises(EngineError, match="The cluster is gone"):
        run_bulk(run, LISTENER)
    (part,) = (tmp_path / "to").glob("part-*.parquet")
    assert pyarrow.parquet.ParquetFile(part).read().column("id").to_pylist() == ["/a.wav"]


def test_several_processes_on_each_device() -> None:
    run = BulkRun(Path("list"), Path("to"), DEMO_MODEL, ("cuda:0", "cuda:1"), engines=2)
    transcribers = run._local_settings(run.spec()).transcribers
    assert [one.device for one in transcribers] == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
