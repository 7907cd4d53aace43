"""The GPU engine bears streams that start, stop, vanish and lag at random; see tests/engine/test_churn.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.transducer import load_transducer
from moulin.engine.gpu.stepper import GpuStepper
from moulin.engine.stepper import Stepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.evaluate.stream_churn import run_churn
from moulin.evaluate.stream_crowd import Churn
from moulin.models.open_stream_recognizer import open_stream_recognizer
from tests.bundles import BUNDLES

from .plain_stepper import PlainStepper

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="the plain twin is the same for all families")


@pytest.mark.parametrize(
    "bundle",
    [
        "zipformer2-streaming",
        pytest.param("zipformer-streaming", marks=needs_gpu),
        pytest.param("conformer-streaming", marks=needs_gpu),
        pytest.param("lstm-streaming", marks=needs_gpu),
    ],
)
def test_streams_that_come_and_go(bundle: str, device: torch.device) -> None:
    """Streams in fp32; without a GPU fewer, by the stepper's plain twin."""
    model = BUNDLES / bundle / "epoch-1.pt"
    spec = replace(load_checkpoint_spec(model, streaming=True), run_in="fp32")
    on_gpu, places = device.type == "cuda", 24
    stepper: Stepper
    if on_gpu:
        stepper = GpuStepper(spec, load_transducer([model]), capacity=places, max_batch=16, device="cuda")
    else:
        stepper = PlainStepper(spec, places)
    plain = open_stream_recognizer(model, max_streams=32, max_batch=32)
    audio = np.random.default_rng(0).normal(0, 3000, 64_000).astype(np.int16)
    churn = Churn(streams=2000 if on_gpu else 60, open_at_once=places, longest_sec=1.2, one_sampled_in=2)
    report = run_churn(StreamRecognizer(spec, stepper), plain, audio, churn)
    assert report.faults == [], report.figures()
    assert report.errors.words > 100
