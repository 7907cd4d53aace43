"""Starts of the gateway's process, with programs in its place that take their time."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from moulin.errors import LaunchError
from moulin.launch import gateway
from moulin.launch.gateway import GatewayProcess

IDLE_SEC = 1.0


def program(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GatewayProcess:
    """A process of `script`, which answers when there is a file `answers` in its folder."""
    file = tmp_path / "gateway"
    file.write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
    file.chmod(0o700)
    monkeypatch.setattr(gateway, "sys", SimpleNamespace(executable=str(file)))
    monkeypatch.setattr(gateway, "answers", lambda *_, **__: (tmp_path / "answers").exists())
    monkeypatch.setattr(gateway, "_IDLE_START_SEC", IDLE_SEC)
    monkeypatch.setattr(gateway, "_LOOK_SEC", 0.2)
    return GatewayProcess([], address="127.0.0.1:1")


def test_workers_may_take_long_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine they did not answer within a minute, and the service ended."""
    count = "until [ $n -gt 5000000 ] || [ -e enough ]; do n=$((n + 1)); done"
    with program(f"(n=0; {count}; touch answers; exec sleep 5) & (sleep 2; touch enough); wait", tmp_path, monkeypatch):
        assert (tmp_path / "answers").exists()


def test_one_that_does_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(LaunchError, match="got 1 s in which it did nothing"),
        program("exec sleep 60", tmp_path, monkeypatch),
    ):
        pass
