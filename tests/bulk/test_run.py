"""Who works on a job, and what is kept of it when that is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest

from moulin.bulk.executor import Output
from moulin.bulk.local.executor import LocalExecutor
from moulin.bulk.run import BulkRun, run_bulk
from moulin.bulk.schema import failed_row, transcribed_table
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL
from moulin.errors import EngineError
from moulin.models.engine_choice import EngineChoice

SPEC = load_bundle(DEMO_MODEL)


@pytest.mark.parametrize(
    ("devices", "cores", "engines_per_gpu", "processes", "decoders"),
    [
        (("cuda:0",), 16, None, ["cuda:0", "cuda:0"], 14),
        (("cuda:0",), 4, None, ["cuda:0"], 3),
        (("cuda:0", "cuda:1"), 8, None, ["cuda:0", "cuda:1"], 6),
        (("cuda:0", "cuda:1"), 32, 3, ["cuda:0"] * 3 + ["cuda:1"] * 3, 26),
        (("cuda:0",), 2, 4, ["cuda:0"] * 4, 1),
        (("cpu",), 16, None, ["cpu"], 8),
    ],
)
def test_processes(
    devices: tuple[str, ...],
    cores: int,
    engines_per_gpu: int | None,
    processes: list[str],
    decoders: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    engine = EngineChoice("torch", devices[0])
    run = BulkRun(Path("a"), Path("b"), DEMO_MODEL, devices, engine, engines_per_gpu=engines_per_gpu)
    executor = run.executor(SPEC)
    assert isinstance(executor, LocalExecutor)
    settings = executor._settings
    assert [transcriber.device for transcriber in settings.transcribers] == processes
    assert settings.decoders == decoders


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
