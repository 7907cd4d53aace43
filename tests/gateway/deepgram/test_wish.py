"""Deepgram's parameters: what they mean here, what is refused and what is ignored."""

from __future__ import annotations

from typing import Any

import pytest

from moulin.audio.pcm import RawFormat
from moulin.client.served_model import ServedModel
from moulin.gateway.api_error import ApiError
from moulin.gateway.deepgram.wish import LEAST_PAUSE_SEC, Wish

RAW = {"encoding": "linear16", "sample_rate": "16000"}


def wish(*more: tuple[str, str], live: bool = True, **query: Any) -> Wish:
    return Wish.of([*query.items(), *more], live=live)


@pytest.mark.parametrize(
    ("query", "raw"),
    [
        ({}, None),
        ({"encoding": "ogg-opus"}, None),
        ({"encoding": "opus", "sample_rate": "48000"}, None),
        (RAW, RawFormat("s16le", 16_000)),
        ({"encoding": "LINEAR32", "sample_rate": "48000", "channels": "2"}, RawFormat("f32le", 48_000, 2)),
        ({"encoding": "mulaw", "sample_rate": "8000"}, RawFormat("mulaw", 8_000)),
        ({"encoding": "alaw", "sample_rate": "8000"}, RawFormat("alaw", 8_000)),
    ],
)
def test_encodings(query: dict[str, Any], raw: RawFormat | None) -> None:
    assert wish(**query).raw == raw


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"encoding": "g729", "sample_rate": "8000"}, "Expected encoding to be one of linear16, .*got 'g729'"),
        ({"encoding": "linear16"}, "Expected sample_rate with encoding linear16, got none"),
        (RAW | {"sample_rate": "4000"}, "Expected sample_rate to be a whole number of 8000 to 192000, got '4000'"),
        (RAW | {"sample_rate": "16000.5"}, "Expected sample_rate to be a whole number"),
        (RAW | {"sample_rate": "1_6000"}, "Expected sample_rate to be a whole number"),
        (RAW | {"channels": "1.5"}, "Expected channels to be a whole number"),
        (RAW | {"sample_rate": "nan"}, "Expected sample_rate"),
        ({"sample_rate": "abc"}, "Expected sample_rate to be a whole number of 8000 to 192000, got 'abc'"),
        ({"encoding": "opus", "sample_rate": "0"}, "Expected sample_rate to be a whole number"),
        (RAW | {"channels": "0"}, "Expected channels to be a whole number of 1 to 32, got '0'"),
        (RAW | {"channels": "9", "multichannel": "true"}, "channels of at most 8 with multichannel, got 9"),
        ({"multichannel": "true"}, "Expected encoding, .*got containers"),
        ({"interim_results": "yes"}, "Expected interim_results to be true or false, got 'yes'"),
        ({"endpointing": "soon"}, "Expected endpointing to be a number of 0 to 60000, got 'soon'"),
        ({"utterance_end_ms": "-1"}, "Expected utterance_end_ms"),
        ({"diarize": "true"}, "Expected no diarize, got 'true'"),
        ({"redact": "pci"}, "Expected no redact, got 'pci'"),
        ({"callback": "http://elsewhere"}, "Expected no callback"),
        ({"translate": "de"}, "Expected no translate"),
    ],
)
def test_what_is_refused(query: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        wish(**query)
    assert caught.value.status == 400


def test_what_is_given_twice() -> None:
    assert wish(("model", "nova-3"), ("model", ""), model="nova-3").model == "nova-3"
    with pytest.raises(ApiError, match="Expected one model, got 'nova-3' and 'base'") as caught:
        wish(("model", "base"), model="nova-3")
    assert caught.value.param == "model"


def test_an_empty_value_is_none() -> None:
    raw: dict[str, Any] = RAW
    assert wish(multichannel="", endpointing="", utterance_end_ms="", **raw) == wish(**raw)


@pytest.mark.parametrize(
    ("query", "pause_sec", "speech_final"),
    [
        ({}, LEAST_PAUSE_SEC, True),
        ({"endpointing": "true"}, LEAST_PAUSE_SEC, True),
        ({"endpointing": "10"}, LEAST_PAUSE_SEC, True),
        ({"endpointing": "500"}, 0.5, True),
        ({"endpointing": "false"}, LEAST_PAUSE_SEC, False),
        ({"endpointing": "False"}, LEAST_PAUSE_SEC, False),
        ({"endpointing": "2000", "utterance_end_ms": "1000"}, 1.0, True),
        ({"utterance_end_ms": ""}, LEAST_PAUSE_SEC, True),
    ],
)
def test_pauses(query: dict[str, Any], pause_sec: float, speech_final: bool) -> None:
    found = wish(**query)
    assert (found.pause_sec, found.speech_final) == (pause_sec, speech_final)
    assert found.stream_options(hotwords=True) == {"rule2_min_trailing_silence_sec": pause_sec}


def test_words_to_expect() -> None:
    given = [("keyterm", "New York"), ("keyterm", "moulin"), ("keyterm", " "), ("keyterm", "moulin")]
    found = wish(*given, ("keywords", "one:2.5"), ("keywords", "two"), ("keywords", "no:-3"), ("keywords", "a:b"))
    assert found.phrases == ("New York", "moulin", "one", "two", "a:b")
    assert found.decoding_options(hotwords=True) == {"hotwords": list(found.phrases)}
    assert found.decoding_options(hotwords=False) == {}
    assert found.ignored_with(ServedModel("m", True, 30.0, uses_hotwords=True)) == ()
    assert found.ignored_with(ServedModel("m", True, 30.0)) == ("keyterm",)


def test_what_is_ignored_is_named() -> None:
    query: dict[str, Any] = {"smart_format": "true", "punctuate": "false", "tag": "a", "utterances": "true"}
    assert wish(**query).ignored == ("smart_format", "tag")
    assert wish(live=False, interim_results="true", diarize="false", redact="").ignored == ("interim_results",)
    assert len(wish(*((f"x{number}", "1") for number in range(1000))).ignored) == 32


def test_a_recording() -> None:
    found = wish(live=False, multichannel="True", utterances="true", utt_split="1.5", paragraphs="true")
    assert found.selection.channels == "each"
    assert (found.utterances, found.utt_split_sec, found.paragraphs) == (True, 1.5, True)


@pytest.mark.parametrize(
    ("said", "heard", "ignored"),
    [("en-US", ("en",), ()), ("multi", ("en",), ("language",)), ("en", (), ("language",)), ("", ("en",), ())],
)
def test_languages(said: str, heard: tuple[str, ...], ignored: tuple[str, ...]) -> None:
    assert wish(language=said).ignored_with(ServedModel("m", True, 30.0, languages=heard)) == ignored


def test_another_language_than_the_models_is_refused() -> None:
    with pytest.raises(ApiError, match="Expected a recording in en, which the model hears, got the language 'de'"):
        wish(language="de").ignored_with(ServedModel("m", True, 30.0, languages=("en",)))
