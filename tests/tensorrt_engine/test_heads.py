"""Engines of encoders with a CTC head, with the stand-in for TensorRT: blank frames skipped, and the head decoded, as
by ONNX Runtime, which sherpa-onnx judges in `tests/engine`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.decoding.options import METHODS, DecodingOptions
from moulin.errors import EngineError
from moulin.evaluate.manifest import demo_clips
from moulin.models.engine_choice import Engine, EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from moulin.tensorrt_engine.ready_plan import open_plan, ready_plan
from moulin.tensorrt_engine.runner import TensorRtEncoder
from tests.bundles import BUNDLES
from tests.engine.blank_bias import OFFLINE, STREAMING, THRESHOLD, Utterance, bias_for, raised_export
from tests.tensorrt_stand_in import Arrays, StandIn

pytestmark = pytest.mark.needs("torch")
ENGINES: tuple[Engine, ...] = ("tensorrt", "onnxruntime")
PLAIN = [DecodingOptions(method) for method in METHODS]
SKIPPING = [DecodingOptions(method, blank_skip=THRESHOLD) for method in METHODS]


@dataclass(frozen=True)
class Both:
    """moulin's exports with both heads, which skip 60 % of the frames of the first waveform."""

    offline: Path
    live: Path
    waveforms: list[Floats]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    to = tmp_path_factory.mktemp("both")
    waveforms = [read_audio(clip.audio)[:40_000] for clip in demo_clips()[:2]]
    bias = bias_for(0.6, Utterance(waveforms[0]).log_probs)
    exports = raised_export(OFFLINE, bias, to / "offline"), raised_export(STREAMING, bias, to / "live")
    return Both(*exports, waveforms)


def offline_texts(model: Path, engine: EngineChoice, both: Both, options: Sequence[DecodingOptions]) -> list[str]:
    with open_recognizer(model, engine, max_audio_sec=10) as recognizer:
        return [
            transcript.text
            for chosen in options
            for transcript in recognizer.transcribe(both.waveforms, [chosen] * len(both.waveforms))
        ]


def live_texts(model: Path, engine: EngineChoice, both: Both, options: Sequence[DecodingOptions]) -> list[str]:
    texts = []
    with open_stream_recognizer(model, engine, max_streams=1, max_batch=2) as recognizer:
        for chosen in options:
            stream = recognizer.open(StreamOptions(chosen))
            recognizer.accept(stream, both.waveforms[0])
            recognizer.finish(stream)
            recognizer.advance(stream)
            texts.append(recognizer.text(stream))
            recognizer.close(stream)
    return texts


def test_blank_frames_are_skipped(both: Both, tensorrt: StandIn) -> None:
    for texts_of, model in ((offline_texts, both.offline), (live_texts, both.live)):
        found, wanted = (
            texts_of(model, EngineChoice(engine, precision="fp32"), both, [*SKIPPING, *PLAIN]) for engine in ENGINES
        )
        assert found == wanted
        half = len(found) // 2
        assert all(found)
        assert found[:half] != found[half:]
    assert tensorrt.builds == 2


def test_the_head_is_decoded_of_both_and_of_icefalls_export(both: Both, tensorrt: StandIn) -> None:
    models = ((offline_texts, both.offline), (offline_texts, OFFLINE), (live_texts, both.live), (live_texts, STREAMING))
    for texts_of, model in models:
        found, wanted = (
            texts_of(model, EngineChoice(engine, precision="fp32", head="ctc"), both, PLAIN) for engine in ENGINES
        )
        assert found == wanted
    assert tensorrt.builds == len(models)
    # Of the same file, but with other outputs.
    offline_texts(both.offline, EngineChoice("tensorrt", precision="fp32"), both, PLAIN[:1])
    assert tensorrt.builds == len(models) + 1


@pytest.mark.parametrize("damaged", ["encoder_out", "blank_log_probs"])
def test_an_engine_with_either_output_wrong_is_not_kept(damaged: str, both: Both, tensorrt: StandIn) -> None:
    def nan(arrays: Arrays) -> Arrays:
        arrays[damaged][0, -1, 0] = np.nan
        return arrays

    tensorrt.damage = nan
    with pytest.raises(EngineError, match="gives NaN or infinity"):
        open_recognizer(both.offline, EngineChoice("tensorrt"), max_audio_sec=10)


@pytest.mark.usefixtures("tensorrt")
def test_an_engine_without_the_head_is_refused_for_a_model_with_it(both: Both) -> None:
    """As one of an earlier version is, where a repository names it."""
    without, model = load_bundle(BUNDLES / "zipformer2-offline"), load_bundle(both.offline)
    plan = ready_plan(without, device="cuda", speech=lambda: both.waveforms, precision="fp32", max_audio_sec=5)
    loaded = open_plan(without, plan, device="cuda")
    with pytest.raises(EngineError, match="to have the outputs blank_log_probs, encoder_out, encoder_out_lens, got"):
        TensorRtEncoder(model, loaded)
