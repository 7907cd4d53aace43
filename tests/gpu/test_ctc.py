"""CTC heads on the GPU engine against PyTorch's modules, which sherpa-onnx judges in `tests/engine`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from moulin.arrays import Floats
from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.spec import CheckpointSpec
from moulin.decoding.options import METHODS, DecodingOptions
from moulin.engine.gpu.ctc import GpuCtcEncoder, GpuCtcStreamEncoder
from moulin.engine.host_pipeline import CtcPipeline
from moulin.engine.host_stepper import CtcStepper
from moulin.engine.recognizer import Recognizer
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.engine.torch.runner import TorchRunner
from moulin.engine.torch.stream_runner import TorchStreamRunner
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.models.shared_model import shared_ctc_model, shared_model
from moulin.streaming.options import StreamOptions
from tests.engine.blank_bias import OFFLINE, STREAMING, raised_checkpoint

OPTIONS = [DecodingOptions(method) for method in METHODS]


def spec_of(bundle: Path, to: Path) -> CheckpointSpec:
    """Of the checkpoint with both heads, of which the CTC head is decoded."""
    checkpoint = raised_checkpoint(bundle, 0.0, to) / "epoch-1.pt"
    spec = load_checkpoint_spec(checkpoint, streaming=bundle == STREAMING, head="ctc")
    return replace(spec, run_in="fp32")


def noise(seed: int, samples: int) -> Floats:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def test_recordings(device: torch.device, tmp_path: Path) -> None:
    """One too short for a frame, together with longer ones and alone."""
    spec = spec_of(OFFLINE, tmp_path / "model")
    ours = GpuCtcEncoder(spec, shared_ctc_model(spec), max_frames=200, device=str(device), threads=1)
    plain = TorchRunner(spec, shared_model(spec, "cpu"), threads=1)
    waveforms = [noise(0, 11_000), noise(1, 7_001), noise(2, 80)]
    heard = []
    for runner in (ours, plain):
        with Recognizer(spec, CtcPipeline(spec, runner)) as recognizer:
            each = [recognizer.transcribe(waveforms, [chosen] * 3) for chosen in OPTIONS]
            each.append(recognizer.transcribe([waveforms[1]]))
            words = [[(word.word, word.start_sec) for word in it.words] for some in each for it in some]
            heard.append(([it.text for some in each for it in some], words))
    assert heard[0] == heard[1]
    assert any(heard[0][0])
    x, lengths = np.random.default_rng(3).normal(-6, 3, (2, 101, 80)).astype(np.float32), np.array([101, 60])
    (found, counts), (wanted, wanted_counts) = ours.encoder(x, lengths), plain.encoder(x, lengths)
    assert counts.tolist() == wanted_counts.tolist()
    np.testing.assert_allclose(found[0, : counts[0]], wanted[0, : counts[0]], atol=2e-3)
    np.testing.assert_allclose(np.exp(found).sum(axis=-1)[0, : counts[0]], 1.0, atol=1e-4)


def test_streams(device: torch.device, tmp_path: Path) -> None:
    """Two streams, the second one in a slot that another has left."""
    spec = spec_of(STREAMING, tmp_path / "model")
    ours = GpuCtcStreamEncoder(spec, shared_ctc_model(spec), capacity=2, max_batch=2, device=str(device))
    plain = TorchStreamRunner(spec, shared_model(spec, "cpu"), capacity=2)
    heard = []
    for runner in (ours, plain):
        texts = []
        with StreamRecognizer(spec, CtcStepper(spec, runner)) as recognizer:
            for seed, chosen in enumerate(OPTIONS):
                streams = [recognizer.open(StreamOptions(chosen)) for _ in range(2)]
                for number, stream in enumerate(streams):
                    recognizer.accept(stream, noise(seed + number, 12_000 + 5_000 * number))
                while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
                    recognizer.step(ready)
                texts += [recognizer.text(stream) for stream in streams]
                for stream in streams:
                    recognizer.close(stream)
        heard.append(texts)
    assert heard[0] == heard[1]
    assert any(heard[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: PyTorch sees none")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_in_half_precision_on_a_card(precision: str, tmp_path: Path) -> None:
    """Frames near those of fp32: texts of random weights may differ."""
    engine = EngineChoice(device="cuda", head="ctc", precision="fp16" if precision == "fp16" else "bf16")
    with open_recognizer(OFFLINE / "epoch-1.pt", engine) as recognizer:
        assert isinstance(recognizer.pipeline, CtcPipeline)
        assert isinstance(recognizer.pipeline.runner, GpuCtcEncoder)
        x = np.random.default_rng(3).normal(-6, 3, (2, 101, 80)).astype(np.float32)
        found, _ = recognizer.pipeline.runner.encoder(x, np.array([101, 60]))
        recognizer.transcribe([noise(0, 30_000)], OPTIONS[1:])
    spec = spec_of(OFFLINE, tmp_path / "model")
    wanted, _ = TorchRunner(spec, shared_model(spec, "cpu")).encoder(x, np.array([101, 60]))
    np.testing.assert_allclose(np.exp(found[0]), np.exp(wanted[0]), atol=0.1)
    checkpoint = raised_checkpoint(STREAMING, 0.0, tmp_path / "live") / "epoch-1.pt"
    with open_stream_recognizer(checkpoint, engine, max_streams=2) as live:
        stream = live.open()
        live.accept(stream, noise(1, 30_000))
        live.finish(stream)
        live.advance(stream)
        assert live.text(stream)
