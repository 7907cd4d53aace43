"""Lines of progress, from what writes them to what reads tritonserver's output."""

from __future__ import annotations

import logging

import pytest

from moulin.launch.triton_lines import TritonLine, TritonLines
from moulin.start_progress import progress_lines, tell


def test_progress_as_long_as_a_model_loads(capsys: pytest.CaptureFixture[str]) -> None:
    engine, other = logging.getLogger("moulin.gpu.kernel_cache"), logging.getLogger("moulin.client")
    tell("unheard")
    with progress_lines("100%s_0_0"):
        tell("loading weights")
        engine.info("The %d GPU kernels are there", 9)
        engine.warning("shown by others")
        other.info("not the engine's")
    engine.info("too late")
    passing, lasting = map(TritonLines(needs_gpu=True).read, capsys.readouterr().err.splitlines())
    assert passing == TritonLine(logging.INFO, "100%s_0_0: loading weights ...", is_ours=True, is_passing=True)
    assert lasting == TritonLine(logging.INFO, "100%s_0_0: The 9 GPU kernels are there", is_ours=True)


def test_without_an_instance(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_lines():
        tell("compiled 3 of 9 GPU kernels")
    assert capsys.readouterr().err == "compiled 3 of 9 GPU kernels ...\n"
