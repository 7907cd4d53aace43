from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.decoding.options import METHODS, DecodingOptions, Method
from moulin.demo.files import DEMO_MODEL
from moulin.engine.recognizer import Recognizer
from moulin.errors import AudioError, BundleError
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.wer import WordErrors, count_word_errors, digits_spelled_alike
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.transcript import Transcript
from tests.bundles import BUNDLES, OFFLINE

BEAM = DecodingOptions("modified_beam_search")


@pytest.fixture(scope="module", params=[*OFFLINE, "demo"])
def recognizer(request: pytest.FixtureRequest) -> Iterator[Recognizer]:
    folder = DEMO_MODEL if request.param == "demo" else BUNDLES / request.param
    with open_recognizer(folder, EngineChoice(threads=2)) as recognizer:
        yield recognizer


@pytest.fixture(scope="module")
def demo() -> Iterator[Recognizer]:
    with open_recognizer(DEMO_MODEL) as recognizer:
        yield recognizer


def texts(transcripts: list[Transcript]) -> list[str]:
    return [transcript.text for transcript in transcripts]


# --------------------------------------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize("method", METHODS)
def test_word_errors_on_the_demo_recordings(demo: Recognizer, clips: list[Floats], method: Method) -> None:
    total = WordErrors()
    transcripts = demo.transcribe(clips, [DecodingOptions(method)] * len(clips))
    for clip, transcript in zip(demo_clips(), transcripts, strict=True):
        total += count_word_errors(clip.text, transcript.text, normalize=digits_spelled_alike)
    assert total.words == 140
    assert total.rate <= 0.065


def test_the_last_word_is_heard_where_a_recording_stops_with_it(demo: Recognizer, clips: list[Floats]) -> None:
    """The tail padding is there to push the last word out."""
    assert len(demo.transcribe([clips[0]])[0].words) == 10


# ------------------------------------------------------------------------------------------------------------ batches


def test_a_batch_is_its_recordings_one_by_one(recognizer: Recognizer, clips: list[Floats]) -> None:
    """Padding changes no result, in any order and in any batch."""
    waveforms = [clips[3], clips[0][:24_000], clips[1], clips[2][:33_333], clips[4]]
    alone = [recognizer.transcribe([waveform])[0] for waveform in waveforms]
    assert texts(recognizer.transcribe(waveforms)) == texts(alone)
    assert texts(recognizer.transcribe(waveforms[::-1])) == texts(alone[::-1])
    assert len(set(texts(alone))) == len(waveforms)


def test_an_empty_batch(recognizer: Recognizer) -> None:
    assert recognizer.transcribe([]) == []


def test_empty_waveforms_among_others(recognizer: Recognizer, clips: list[Floats]) -> None:
    nothing = np.zeros(0, np.float32)
    silent, spoken, also_silent = recognizer.transcribe([nothing, clips[3], nothing])
    assert silent == also_silent == Transcript("", (), 0.0)
    assert spoken == recognizer.transcribe([clips[3]])[0]
    assert recognizer.transcribe([nothing]) == [Transcript("", (), 0.0)]


def test_every_utterance_has_its_own_options(recognizer: Recognizer, noises: list[Floats]) -> None:
    options = [DecodingOptions(), BEAM, DecodingOptions(blank_penalty=3.0), BEAM]
    wanted = [recognizer.transcribe([w], [chosen])[0] for w, chosen in zip(noises, options, strict=True)]
    assert texts(recognizer.transcribe(noises, options)) == texts(wanted)


def test_the_recognizers_own_options_are_the_default(noises: list[Floats]) -> None:
    with open_recognizer(BUNDLES / "zipformer-offline", options=BEAM) as beam:
        assert beam.transcribe(noises) == beam.transcribe(noises, [BEAM] * 4)
        assert beam.transcribe(noises) != beam.transcribe(noises, [DecodingOptions()] * 4)


def test_four_threads_at_once(recognizer: Recognizer, clips: list[Floats]) -> None:
    waveforms = [clip[: 20_000 + 5_000 * number] for number, clip in enumerate(clips[:8])]
    wanted = [recognizer.transcribe([waveform], [BEAM]) for waveform in waveforms]
    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(lambda waveform: recognizer.transcribe([waveform], [BEAM]), waveforms))
    assert [texts(transcripts) for transcripts in got] == [texts(transcripts) for transcripts in wanted]


# ----------------------------------------------------------------------------------------------------- short and long


@pytest.mark.parametrize("tail_padding_sec", [0.0, 0.3])
@pytest.mark.parametrize("name", [*OFFLINE, "demo"])
def test_very_short_audio(name: str, tail_padding_sec: float) -> None:
    """From one sample to half a second: first without a feature frame, then with too few for the encoder."""
    folder = DEMO_MODEL if name == "demo" else BUNDLES / name
    lengths = [1, 79, 80, 160, 1_600, 3_200, 8_000]
    waveforms = [np.full(length, 0.1, np.float32) for length in lengths]
    with open_recognizer(folder, tail_padding_sec=tail_padding_sec) as recognizer:
        alone = [recognizer.transcribe([waveform])[0] for waveform in waveforms]
        together = recognizer.transcribe(waveforms)
    assert [transcript.duration_sec for transcript in alone] == [round(length / 16000, 3) for length in lengths]
    assert len(together) == len(alone)


def test_too_long_audio() -> None:
    with open_recognizer(BUNDLES / OFFLINE[0], max_audio_sec=1.0) as recognizer:
        recognizer.transcribe([np.zeros(16_000, np.float32)])
        with pytest.raises(AudioError, match=r"expected at most 1 s of audio at once, got 1\.1 s") as caught:
            recognizer.transcribe([np.zeros(100, np.float32), np.zeros(17_600, np.float32)])
    assert "--max-audio-sec" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("waveform", "match"),
    [
        (np.array([0.0, np.nan], np.float32), "expected finite samples, got nan at sample 1"),
        (np.array([0.0, -np.inf], np.float32), "expected finite samples, got -inf at sample 1"),
        (np.full(1600, 12_000.0, np.float32), r"expected floats in \[-1, 1\], got a peak of 12000"),
        (np.zeros((2, 1600), np.float32), r"shape \[2, 1600\]"),
        (np.zeros(1600, np.int32), "got int32"),
    ],
)
def test_waveforms_that_are_none(waveform: Floats, match: str, noises: list[Floats]) -> None:
    with open_recognizer(BUNDLES / OFFLINE[0]) as recognizer, pytest.raises(AudioError, match=match):
        recognizer.transcribe([noises[0], waveform])


def test_sixteen_bit_samples_are_the_same_audio(demo: Recognizer, clips: list[Floats]) -> None:
    integers = np.round(clips[0] * 32768).astype(np.int16)
    assert demo.transcribe([integers])[0].text == demo.transcribe([clips[0]])[0].text


def test_a_streaming_model_is_refused() -> None:
    with pytest.raises(BundleError, match="Expected an offline model, got the streaming lstm"):
        open_recognizer(BUNDLES / "lstm-streaming")


def test_precision(noises: list[Floats]) -> None:
    with open_recognizer(BUNDLES / "zipformer2-offline", EngineChoice(precision="int8")) as recognizer:
        assert recognizer.spec.precision == "int8"
        assert len(recognizer.transcribe(noises)) == 4


# -------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize("method", METHODS)
def test_words_are_in_time_and_in_the_text(recognizer: Recognizer, clips: list[Floats], method: Method) -> None:
    waveforms = [clips[0], clips[1][:50_000], clips[2][:24_000]]
    for waveform, transcript in zip(
        waveforms, recognizer.transcribe(waveforms, [DecodingOptions(method)] * 3), strict=True
    ):
        assert transcript.duration_sec == pytest.approx(len(waveform) / 16000, abs=1e-3)
        assert [word.word for word in transcript.words] == transcript.text.split()
        for word in transcript.words:
            assert 0 <= word.start_sec <= word.end_sec <= transcript.duration_sec
            assert 0 < word.confidence <= 1
        for word, following in zip(transcript.words, transcript.words[1:], strict=False):
            assert word.end_sec <= following.start_sec


def test_demo_words_are_spread_over_the_recording(demo: Recognizer, clips: list[Floats]) -> None:
    [transcript] = demo.transcribe([clips[3]])
    starts = [word.start_sec for word in transcript.words]
    assert starts[0] < 1.5
    assert starts[-1] > 0.6 * transcript.duration_sec
    assert all(re.fullmatch("[A-Z]+", word.word) for word in transcript.words)
    assert np.mean([word.confidence for word in transcript.words]) > 0.7


def test_the_tokens_of_a_recording_do_not_depend_on_threads(clips: list[Floats]) -> None:
    found = []
    for threads in (1, 3):
        with open_recognizer(Path(BUNDLES / "conformer-offline"), EngineChoice(threads=threads)) as recognizer:
            found.append(texts(recognizer.transcribe(clips[:3])))
    assert found[0] == found[1]


def test_options_for_other_numbers_of_waveforms_are_refused(recognizer: Recognizer, noises: list[Floats]) -> None:
    for options in ([], [DecodingOptions()] * 3):
        with pytest.raises(ValueError, match=f"options for each of 2 waveforms, got {len(options)}"):
            recognizer.transcribe(noises[:2], options)
