"""What a trained checkpoint hears, exported to both forms and as it is. Its parameters are digits-en's rounded to half
precision, to keep the repository small; unrounded they make as many errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.bundle.transducer import load_transducer
from moulin.demo.files import DEMO_MODEL
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.wer import WordErrors, count_word_errors, digits_spelled_alike
from moulin.export.to_onnx import export_onnx
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer

CHECKPOINT = Path(__file__).parents[1] / "data" / "digits-en"


@pytest.fixture(scope="module")
def waveforms() -> list[Floats]:
    return [read_audio(clip.audio) for clip in demo_clips()]


@pytest.fixture(scope="module", params=["offline", "streaming"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    transducer = load_transducer([CHECKPOINT / "model.safetensors"])
    layout = transducer.encoder.streaming_layout() if request.param == "streaming" else None
    export_onnx(transducer, folder, request.param, layout)
    (folder / "tokens.txt").write_bytes((CHECKPOINT / "tokens.txt").read_bytes())
    return folder


def word_errors(texts: Sequence[str]) -> WordErrors:
    clips = demo_clips()
    assert len(texts) == len(clips) == 14
    counts = (
        count_word_errors(clip.text, text, normalize=digits_spelled_alike)
        for clip, text in zip(clips, texts, strict=True)
    )
    return sum(counts, WordErrors())


def heard(model: Path, waveforms: Sequence[Floats]) -> list[str]:
    with open_recognizer(model) as recognizer:
        return [transcript.text for transcript in recognizer.transcribe(waveforms)]


def heard_live(model: Path, waveforms: Sequence[Floats]) -> list[str]:
    recognizer = open_stream_recognizer(model, max_streams=1)
    texts = []
    for waveform in waveforms:
        stream = recognizer.open()
        recognizer.accept(stream, waveform)
        recognizer.finish(stream)
        recognizer.advance(stream)
        texts.append(recognizer.text(stream))
        recognizer.close(stream)
    return texts


def test_exported(exported: Path, waveforms: list[Floats]) -> None:
    """As many errors as with Icefall's exports: 6.43 % offline and 12.86 % streaming, greedy."""
    if exported.name.startswith("offline"):
        errors, expected = word_errors(heard(exported, waveforms)), 9
    else:
        errors, expected = word_errors(heard_live(exported, waveforms)), 18
    assert (errors.errors, errors.words) == (expected, 140)


def test_as_it_is(waveforms: list[Floats]) -> None:
    assert word_errors(heard(CHECKPOINT, waveforms)).errors == 9
    assert word_errors(heard_live(CHECKPOINT, waveforms)).errors == 18


def test_the_tokens_are_the_demos() -> None:
    assert (CHECKPOINT / "tokens.txt").read_bytes() == (DEMO_MODEL / "tokens.txt").read_bytes()
