"""The offline runner, and texts of both, with the stand-in for TensorRT."""

from __future__ import annotations

import numpy as np
import pytest

from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_STREAMING_MODEL, demo_speech
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.errors import EngineError
from moulin.evaluate.manifest import demo_clips
from moulin.live_transcript import LiveTranscript
from moulin.models.engine_choice import Engine, EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.tensorrt_engine.ready_plan import open_plan, ready_plan
from moulin.tensorrt_engine.runner import TensorRtRunner
from tests.bundles import BUNDLES
from tests.tensorrt_stand_in import StandIn

OFFLINE = [f"{family}-offline" for family in ("conformer", "zipformer", "zipformer2")]


@pytest.mark.parametrize("name", OFFLINE)
def test_an_offline_encoder(name: str, tensorrt: StandIn) -> None:
    spec = load_bundle(BUNDLES / name)
    plan = ready_plan(spec, device="cuda", speech=demo_speech, precision="fp32", max_batch=3, max_audio_sec=18)
    tensorrt.profiles_used.clear()
    runner = TensorRtRunner(spec, open_plan(spec, plan, device="cuda"), threads=1)
    usual = OnnxRuntimeRunner(spec, threads=1, rewrite=False)
    random = np.random.default_rng(0)
    # One too short, more than fit in a batch, one for the second profile, and back.
    for rows, frames, profile in ((1, 3, 0), (5, 120, 0), (1, 1700, 1), (1, 300, 0)):
        x = random.normal(-6, 4, (rows, frames, 80)).astype(np.float32)
        lengths = np.array([frames, *random.integers(20, 100, rows - 1)])
        found, out_lens = runner.encoder(x, lengths)
        wanted, wanted_lens = usual.encoder(x, lengths, alone=True)
        assert out_lens.tolist() == wanted_lens.tolist()
        for row, length in enumerate(out_lens):
            assert np.abs(found[row, :length] - wanted[row, :length]).max(initial=0) < 1e-4, (rows, frames)
        assert tensorrt.profiles_used == [profile] * -(-rows // 3)
        tensorrt.profiles_used.clear()
    with pytest.raises(EngineError, match=r"was built for x \[1, \d+, 80\] to .*, got x \[1, 1900, 80\]"):
        runner.encoder(np.zeros((1, 1900, 80), np.float32), np.array([1900]))


def test_texts_are_those_of_onnx_runtime(tensorrt: StandIn) -> None:
    waveform = read_audio(demo_clips()[0].audio)
    texts = []
    engines: tuple[Engine, ...] = ("tensorrt", "onnxruntime")
    for engine in engines:
        with open_stream_recognizer(DEMO_STREAMING_MODEL, EngineChoice(kind=engine), max_streams=2) as recognizer:
            stream = recognizer.open()
            recognizer.accept(stream, waveform)
            recognizer.finish(stream)
            live = LiveTranscript()
            live.apply(recognizer.advance(stream))
            texts.append(live.text)
    assert texts[0] == texts[1] != ""
    assert tensorrt.builds == 1
    for engine in engines:
        with open_recognizer(BUNDLES / "conformer-offline", EngineChoice(kind=engine), max_audio_sec=10) as offline:
            texts.append(offline.transcribe([waveform[:48_000]])[0].text)
    assert texts[2] == texts[3]
