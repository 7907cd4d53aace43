"""nvidia-smi's lines, and a program of that name."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from moulin.evaluate.gpu_usage import GpuUsage, GpuWatch, summarize
from tests.cli.command import eventually


def test_lines_become_means_and_the_greatest_memory() -> None:
    lines = ["0, 50, 1000, 100.0", "1, 0, 10, [N/A]", "0, 100, 3000, 300.0", "1, 0, 10, [N/A]", "0, 9", ""]
    assert summarize(lines) == [GpuUsage(0, 75.0, 3000.0, 200.0), GpuUsage(1, 0.0, 10.0, None)]
    assert asdict(summarize(lines)[1].rounded()) == {
        "index": 1,
        "utilization_percent": 0.0,
        "peak_memory_mib": 10,
        "power_watts": None,
    }


def test_it_runs_from_start_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "0, 40, 2000, 90.5"\necho "$@" >> "$0.arguments"\nexec sleep 60\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    watch = GpuWatch()
    watch.start()
    arguments = program.with_suffix(".arguments")  # written when the sample is
    assert eventually(lambda: arguments.exists() and arguments.read_text() != "")
    assert watch.stop() == [GpuUsage(0, 40.0, 2000.0, 90.5)]
    assert "utilization.gpu" in arguments.read_text()
    assert watch.stop() == []


def test_without_it_there_are_no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    watch = GpuWatch()
    watch.start()
    assert watch.stop() == []
