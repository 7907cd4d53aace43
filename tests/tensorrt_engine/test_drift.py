"""Engines whose results differ from ONNX Runtime's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moulin.bundle.load import load_bundle
from moulin.demo.files import demo_speech
from moulin.errors import EngineError
from moulin.tensorrt_engine.ready_plan import ready_plan
from tests.bundles import BUNDLES
from tests.tensorrt_stand_in import Arrays, StandIn


def _nan(arrays: Arrays) -> Arrays:
    arrays["encoder_out"][0, -1, 5] = np.nan
    return arrays


def _off(arrays: Arrays) -> Arrays:
    return arrays | {"encoder_out": arrays["encoder_out"] * 1.2}


@pytest.mark.parametrize("name", ["conformer-offline", "lstm-streaming"])
def test_an_engine_that_computes_something_else_is_not_kept(name: str, tensorrt: StandIn, tmp_path: Path) -> None:
    spec = load_bundle(BUNDLES / name)
    for damage, message in (
        (_nan, r"in fp16 gives NaN or infinity in \d+ of \d+ encoder frames of speech.*--precision bf16 or fp32"),
        (_off, r"in fp16 differs from ONNX Runtime by (19|20)\.\d\d% on speech, and rounding explains at most 3%"),
    ):
        tensorrt.damage = damage
        with pytest.raises(EngineError, match=message):
            ready_plan(spec, device="cuda", speech=demo_speech, max_batch=2, max_audio_sec=5, to=tmp_path / "engines")
        assert not list((tmp_path / "engines").iterdir())
