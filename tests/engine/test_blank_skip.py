"""Skipping of blank frames by the CTC head, offline: against Icefall's own exports of both heads, frames dropped in the
graph, decoded by sherpa-onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sherpa_onnx

from moulin.arrays import Floats
from moulin.decoding.found import Hypothesis
from moulin.decoding.options import METHODS, DecodingOptions, Method
from moulin.decoding.row_options import RowOptions
from moulin.engine.recognizer import Recognizer
from moulin.errors import MoulinError, OptionsError
from moulin.models.open_recognizer import open_recognizer
from moulin.transcript import Transcript
from tests.bundles import BUNDLES
from tests.engine.blank_bias import (
    OFFLINE,
    SHARES,
    THRESHOLD,
    Raised,
    Utterance,
    raised_model,
    skipping_encoder,
)


@pytest.fixture(scope="module")
def utterances(clips: list[Floats], noises: list[Floats]) -> list[Utterance]:
    return [Utterance(waveform) for waveform in (clips[0], clips[3][:60_000], *noises)]


@pytest.fixture(scope="module", params=SHARES)
def model(
    request: pytest.FixtureRequest, utterances: list[Utterance], tmp_path_factory: pytest.TempPathFactory
) -> Raised:
    log_probs = np.concatenate([utterance.log_probs for utterance in utterances])
    return raised_model(OFFLINE, request.param, log_probs, tmp_path_factory.mktemp("raised"))


@pytest.fixture(scope="module")
def peers_encoder(model: Raised, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return skipping_encoder(model.bias, tmp_path_factory.mktemp("peer") / "skipping-encoder.onnx")


def peer(encoder: Path, method: Method) -> Any:
    return sherpa_onnx.OfflineRecognizer.from_transducer(
        encoder=str(encoder),
        decoder=str(OFFLINE / "decoder-epoch-1-avg-1.onnx"),
        joiner=str(OFFLINE / "joiner-epoch-1-avg-1.onnx"),
        tokens=str(OFFLINE / "tokens.txt"),
        num_threads=1,
        decoding_method="greedy_search" if method == "greedy" else method,
        max_active_paths=4,
    )


def found_by(recognizer: Recognizer, waveforms: list[Floats], options: list[DecodingOptions]) -> list[Hypothesis]:
    found: dict[int, Hypothesis | MoulinError] = {}
    recognizer.pipeline(
        waveforms,
        RowOptions.of(options),
        ["waveform"] * len(waveforms),
        lambda rows, heard: found.update(zip(rows, heard, strict=True)),
    )
    assert all(isinstance(each, Hypothesis) for each in found.values())
    return [found[row] for row in range(len(waveforms))]  # type: ignore[misc]


@pytest.mark.parametrize("form", ["checkpoint", "onnx"])
@pytest.mark.parametrize("method", METHODS)
def test_tokens_and_times_are_those_of_the_peer(
    model: Raised, peers_encoder: Path, utterances: list[Utterance], form: str, method: Method
) -> None:
    theirs = peer(peers_encoder, method)
    options = DecodingOptions(method, beam=4, blank_skip=THRESHOLD)
    waveforms = [utterance.waveform for utterance in utterances]
    frames = skipped = 0
    with open_recognizer(getattr(model, form), tail_padding_sec=0.0) as ours:
        together = found_by(ours, waveforms, [options] * len(waveforms))
        alone = [found_by(ours, [waveform], [options])[0] for waveform in waveforms]
        for utterance, found, lone in zip(utterances, together, alone, strict=True):
            spoken = utterance.spoken(model.bias)
            frames, skipped = frames + len(utterance.log_probs), skipped + len(utterance.log_probs) - len(spoken)
            assert (found.tokens, found.frames) == (lone.tokens, lone.frames)
            if not len(spoken):  # nothing for sherpa-onnx to decode
                assert found.tokens == ()
                continue
            stream = theirs.create_stream()
            stream.accept_waveform(16_000, utterance.waveform)
            theirs.decode_stream(stream)
            symbols = [ours.spec.tokens.symbols[token].replace("▁", " ") for token in found.tokens]
            assert symbols == stream.result.tokens
            # The peer counts the frames that are left.
            in_original = spoken[np.round(np.array(stream.result.timestamps) / 0.04).astype(int)]
            assert list(found.frames) == in_original.tolist()
    assert skipped / frames == pytest.approx(model.share, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_one_batch_have_their_own_choice(model: Raised, utterances: list[Utterance], method: Method) -> None:
    """Beside a row that skips, one that does not is decoded as without the option."""
    waveforms = [utterance.waveform for utterance in utterances[:4]]
    plain, skipping = DecodingOptions(method), DecodingOptions(method, blank_skip=THRESHOLD)
    other = DecodingOptions("modified_beam_search" if method == "greedy" else "greedy", blank_skip=THRESHOLD)
    mixed = [plain, skipping, other, plain]
    with open_recognizer(model.onnx) as ours:
        found = found_by(ours, waveforms, mixed)
        for row, options in enumerate(mixed):
            assert found[row].tokens == found_by(ours, [waveforms[row]], [options])[0].tokens
    with open_recognizer(OFFLINE) as icefalls:  # without the head in the encoder
        for row in (0, 3):
            assert found[row].tokens == found_by(icefalls, [waveforms[row]], [plain])[0].tokens
            assert found[row].frames == found_by(icefalls, [waveforms[row]], [plain])[0].frames


def test_an_empty_recording_beside_others(model: Raised, utterances: list[Utterance]) -> None:
    skipping = DecodingOptions(blank_skip=THRESHOLD)
    with open_recognizer(model.onnx) as ours:
        empty, _, short = ours.transcribe(
            [np.zeros(0, np.float32), utterances[0].waveform, np.zeros(160, np.float32)], [skipping] * 3
        )
        assert (empty.text, short.duration_sec) == ("", 0.01)
        assert ours.transcribe([np.zeros(0, np.float32)], [skipping])[0].text == ""


def test_a_model_without_the_head_refuses_the_one_who_asks(noises: list[Floats]) -> None:
    with open_recognizer(BUNDLES / "zipformer2-offline") as recognizer:
        wanted = recognizer.transcribe([noises[0]])[0].text
        answers = recognizer.transcribe_each(
            noises[:2], [DecodingOptions(), DecodingOptions(blank_skip=0.9)], ["the first", "the second"]
        )
        assert isinstance(answers[0], Transcript)
        assert answers[0].text == wanted
        assert isinstance(answers[1], OptionsError)
        assert "needs a CTC head" in answers[1].message
    # Icefall's own export of the model with both heads has them in two encoders.
    for folder in (BUNDLES / "zipformer2-offline", OFFLINE):
        with pytest.raises(OptionsError, match="needs a CTC head"):
            open_recognizer(folder, options=DecodingOptions(blank_skip=0.9))
