"""On a GPU a checkpoint gives what it gives on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from moulin.audio.decode import read_audio
from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.transducer import load_transducer
from moulin.engine.torch.runner import TorchRunner
from moulin.engine.torch.stream_runner import TorchStreamRunner
from moulin.evaluate.manifest import demo_clips
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from tests.bundles import BUNDLES, OFFLINE, STREAMING

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("bundle", OFFLINE)
def test_the_offline_encoder(bundle: str) -> None:
    spec = load_checkpoint_spec(BUNDLES / bundle / "epoch-1.pt", streaming=False)
    lengths = np.array([400, 123, 9, 77])
    x = np.random.default_rng(0).normal(-6, 4, (len(lengths), lengths.max(), 80)).astype(np.float32)
    cpu, cpu_lengths = TorchRunner(spec, load_transducer([spec.checkpoint])).encoder(x, lengths)
    cuda, cuda_lengths = TorchRunner(spec, load_transducer([spec.checkpoint]), device="cuda:0").encoder(x, lengths)
    assert cuda_lengths.tolist() == cpu_lengths.tolist()
    for row, length in enumerate(cpu_lengths):
        np.testing.assert_allclose(cuda[row, :length], cpu[row, :length], rtol=0, atol=1e-4)


@pytest.mark.parametrize("bundle", STREAMING)
def test_the_streaming_encoder_and_its_features(bundle: str) -> None:
    spec = load_checkpoint_spec(BUNDLES / bundle / "epoch-1.pt", streaming=True)
    assert spec.streaming is not None
    cpu, cuda = (
        TorchStreamRunner(spec, load_transducer([spec.checkpoint]), capacity=5, device=device)
        for device in ("cpu", "cuda:0")
    )
    rng = np.random.default_rng(0)
    for _ in range(10):
        slots = rng.permutation(5)[:3]
        frames = 0.1 * rng.standard_normal((3 * spec.streaming.window_frames, 400), dtype=np.float32)
        features = cpu.fbank(frames)
        np.testing.assert_allclose(cuda.fbank(frames), features, rtol=0, atol=1e-3)
        x = features.reshape(3, spec.streaming.window_frames, 80)
        np.testing.assert_allclose(cuda.encoder(x, slots), cpu.encoder(x, slots), rtol=0, atol=1e-4)
        for runner in (cpu, cuda):
            runner.reset(slots[:1])


def test_texts() -> None:
    speech = [read_audio(clip.audio) for clip in demo_clips()[:5]]
    checkpoint = BUNDLES / "zipformer2-offline" / "epoch-1.pt"
    with (
        open_recognizer(checkpoint) as cpu,
        open_recognizer(checkpoint, EngineChoice(device="cuda", precision="fp32")) as cuda,
    ):
        assert [t.text for t in cuda.transcribe(speech)] == [t.text for t in cpu.transcribe(speech)]
    said = []
    for device in ("cpu", "cuda"):
        recognizer = open_stream_recognizer(
            BUNDLES / "lstm-streaming" / "epoch-1.pt", EngineChoice(device=device, precision="fp32"), max_streams=2
        )
        stream = recognizer.open()
        recognizer.accept(stream, speech[0])
        recognizer.finish(stream)
        recognizer.advance(stream)
        said.append(recognizer.text(stream))
    assert said[0] == said[1] != ""
