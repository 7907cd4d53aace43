from __future__ import annotations

import logging

import pytest

from moulin.launch.progress_log import PREFIX, progress_log


def test_the_engines_messages_as_long_as_it_loads(capsys: pytest.CaptureFixture[str]) -> None:
    engine, other = logging.getLogger("moulin.gpu.kernel_cache"), logging.getLogger("moulin.client")
    with progress_log(f"{PREFIX}asr_0_0: "):
        engine.info("Compiled %d of %d GPU kernels", 3, 9)
        engine.warning("shown by others")
        other.info("not the engine's")
    engine.info("too late")
    assert capsys.readouterr().err == "moulin: asr_0_0: Compiled 3 of 9 GPU kernels\n"
