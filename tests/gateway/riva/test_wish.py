"""What becomes of a `RecognitionConfig`."""

from __future__ import annotations

from typing import Any

import pytest

from moulin.audio.pcm import RawFormat
from moulin.gateway.api_error import ApiError
from moulin.gateway.riva.messages import RecognitionConfig
from moulin.gateway.riva.wish import Wish
from moulin.streaming.options import StreamOptions


def wish(**fields: Any) -> Wish:
    return Wish.of(RecognitionConfig(**{"sample_rate_hertz": 16_000} | fields))


@pytest.mark.parametrize(
    ("encoding", "raw"),
    [
        (0, RawFormat("s16le", 16_000, 1)),
        (1, RawFormat("s16le", 16_000, 1)),
        (3, RawFormat("mulaw", 16_000, 1)),
        (20, RawFormat("alaw", 16_000, 1)),
    ],
)
def test_encodings_without_a_header(encoding: int, raw: RawFormat) -> None:
    assert wish(encoding=encoding).raw == raw


def test_what_clients_send_and_no_model_uses_is_named() -> None:
    config = {
        "profanity_filter": True,
        "enable_automatic_punctuation": True,
        "verbatim_transcripts": True,
        "custom_configuration": {"a": "b"},
        "speech_contexts": [{"phrases": ["MOULIN"], "boost": 20}],
        "endpointing_config": {"start_history": 200, "stop_threshold": 0.9, "stop_history": 700},
    }
    found = wish(**config)
    assert found.ignored == (
        "profanity_filter",
        "enable_automatic_punctuation",
        "verbatim_transcripts",
        "custom_configuration",
        "speech_contexts.boost",
        "endpointing_config.start_history",
        "endpointing_config.stop_threshold",
    )
    assert wish(max_alternatives=1, language_code="en-US", enable_word_time_offsets=True).ignored == ()


def test_phrases_are_hotwords_where_the_model_uses_them() -> None:
    contexts = [{"phrases": ["ONE", "TWO"], "boost": 4}, {"phrases": ["TWO"]}, {"phrases": ["NO"], "boost": -1}]
    found = wish(speech_contexts=contexts)
    assert found.decoding_options(hotwords=True, alternatives=True) == {"hotwords": ["ONE", "TWO"]}
    assert found.decoding_options(hotwords=False, alternatives=True) == {}


@pytest.mark.parametrize(("wanted", "nbest"), [(0, {}), (1, {}), (3, {"nbest": 3}), (30, {"nbest": 10}), (-1, {})])
def test_alternatives_where_the_model_gives_them(wanted: int, nbest: dict[str, int]) -> None:
    found = wish(max_alternatives=wanted)
    assert found.decoding_options(hotwords=True, alternatives=True) == nbest
    assert found.stream_options(hotwords=True, alternatives=True) == nbest
    assert found.stream_options(hotwords=True, alternatives=False) == {}


def test_the_window_of_silence_ends_a_segment() -> None:
    options = wish(endpointing_config={"stop_history": 700}).stream_options(hotwords=True, alternatives=True)
    assert StreamOptions().updated(options).rules.rule2_min_trailing_silence_sec == 0.7
    # Clients send -1 for what nobody chose.
    assert wish(endpointing_config={"stop_history": -1}).stream_options(hotwords=True, alternatives=True) == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoding": 7}, "Expected encoding to be one of ENCODING_UNSPECIFIED, LINEAR_PCM, .*, got '7'"),
        ({"audio_channel_count": 33}, "Expected audio_channel_count of 1 to 32, got 33"),
        ({"diarization_config": {"enable_speaker_diarization": True}}, "no model here tells speakers apart"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        wish(**fields)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sample_rate_hertz": 0}, "Expected sample_rate_hertz of 8000 to 192000 with ENCODING_UNSPECIFIED, got 0"),
        ({"encoding": 2}, "Expected audio that begins as FLAC does, got other bytes"),
        ({"encoding": 4}, "Expected audio that begins as OGGOPUS does, got other bytes"),
    ],
)
def test_what_audio_without_a_header_needs(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError, match=message):
        _ = wish(**fields).raw
