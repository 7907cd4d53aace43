"""Who works on a job."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moulin.bulk.local.executor import LocalExecutor
from moulin.bulk.run import BulkRun
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL
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
