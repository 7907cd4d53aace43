"""The GPU engine bears streams that start, stop, vanish and lag at random; see tests/engine/test_churn.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
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

MODEL = BUNDLES / "zipformer2-streaming" / "epoch-1.pt"


def test_streams_that_come_and_go(device: torch.device) -> None:
    """Streams in fp32; without a GPU fewer, by the stepper's plain twin."""
    spec = replace(load_checkpoint_spec(MODEL, streaming=True), run_in="fp32")
    on_gpu, places = device.type == "cuda", 24
    stepper: Stepper
    if on_gpu:
        stepper = GpuStepper(spec, load_transducer([MODEL]), capacity=places, max_batch=16, device="cuda")
    else:
        stepper = PlainStepper(spec, places)
    plain = open_stream_recognizer(MODEL, max_streams=32, max_batch=32)
    audio = np.random.default_rng(0).normal(0, 3000, 64_000).astype(np.int16)
    churn = Churn(streams=2000 if on_gpu else 60, open_at_once=places, longest_sec=1.2, one_sampled_in=2)
    report = run_churn(StreamRecognizer(spec, stepper), plain, audio, churn)
    assert report.faults == [], report.figures()
    assert report.errors.words > 100
