"""Engines bear streams that start, stop, vanish and lag at random: nothing is lost, and every text is its stream's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from moulin.arrays import Floats
from moulin.bundle.files import Precision
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.evaluate.stream_churn import run_churn
from moulin.evaluate.stream_crowd import Churn
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_stream_recognizer import open_stream_recognizer
from tests.bundles import BUNDLES

DIGITS = Path(__file__).parents[1] / "data" / "digits-en"
TINY = BUNDLES / "zipformer2-streaming"
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: PyTorch sees none")


def plain(model: Path) -> StreamRecognizer:
    return open_stream_recognizer(model, EngineChoice(precision="fp32"), max_streams=64)


@pytest.mark.parametrize(
    ("model", "device", "precision", "max_differing"),
    [
        pytest.param(TINY, "cpu", "fp32", 0.0, id="onnxruntime"),
        pytest.param(DIGITS, "cuda", "fp16", 0.01, marks=on_gpu, id="gpu-fp16"),
        pytest.param(DIGITS, "cuda", "fp32", 0.0, marks=on_gpu, id="gpu-fp32"),
    ],
)
def test_streams_that_come_and_go(
    model: Path, device: str, precision: Precision, max_differing: float, clips: list[Floats]
) -> None:
    """Random weights emit a token nearly every frame; digits-en hears what is said."""
    audio = np.rint(np.concatenate(clips[:6]) * 32767).astype(np.int16)
    engine = EngineChoice(device=device, precision=precision)
    recognizer = open_stream_recognizer(model, engine, max_streams=48, max_batch=32)
    churn = Churn(streams=300, open_at_once=48, longest_sec=1.5, one_sampled_in=4)
    report = run_churn(recognizer, plain(model), audio, churn, max_differing=max_differing)
    assert report.faults == [], report.figures()
    assert report.errors.words > 100
