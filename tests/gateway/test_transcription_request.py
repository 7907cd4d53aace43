from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import FormData

from moulin.audio.selection import Selection
from moulin.errors import OptionsError
from moulin.gateway.api_error import ApiError
from moulin.gateway.transcription_request import transcription_request


def _form(*fields: tuple[str, str]) -> FormData:
    return FormData([("model", "whisper-1"), ("file", "ignored"), *fields])


def test_lists_come_with_brackets_or_without() -> None:
    for name in ("timestamp_granularities[]", "timestamp_granularities"):
        form = _form((name, "word"), (name, "segment"), ("response_format", "verbose_json"))
        assert transcription_request(form).timestamp_granularities == ("word", "segment")


def test_decoding_options() -> None:
    request = transcription_request(_form(("method", "modified_beam_search"), ("beam", "8"), ("temperature", "0.7")))
    assert request.decoding_changes(with_prompt=True) == {"method": "modified_beam_search", "beam": 8}
    with pytest.raises(OptionsError, match="beam"):
        transcription_request(_form(("method", "modified_beam_search"), ("beam", "0"))).decoding_changes(
            with_prompt=False
        )


def test_keywords_and_the_words_of_a_prompt_are_hotwords() -> None:
    form = _form(
        ("keywords[]", "nvidia"), ("keywords", "open ai"), ("prompt", "moulin, nvidia"), ("hotwords_score", "2")
    )
    request = transcription_request(form)
    with_prompt = {"hotwords": ["nvidia", "open ai", {"phrase": "moulin", "optional": True}], "hotwords_score": 2.0}
    assert request.decoding_changes(with_prompt=True) == with_prompt
    assert request.decoding_changes(with_prompt=False)["hotwords"] == ["nvidia", "open ai"]
    for words in ([f"a{number}" for number in range(1001)], ["a" * 101], [" "]):
        request = transcription_request(_form(*(("keywords[]", word) for word in words)))
        with pytest.raises(OptionsError, match="hotword"):
            request.decoding_changes(with_prompt=False)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ([("beams", "8")], "beams", "unknown_parameter"),
        ([("response_format", "xml")], "response_format", "invalid_value"),
        ([("temperature", "2")], "temperature", "invalid_value"),
        ([("timestamp_granularities[]", "word")], "timestamp_granularities", None),
        ([("stream", "true"), ("response_format", "srt")], "response_format", None),
    ],
)
def test_faults_are_named(fields: list[tuple[str, str]], param: str, code: str | None) -> None:
    with pytest.raises(ApiError) as refused:
        transcription_request(_form(*fields))
    error: Any = refused.value
    assert (error.status, error.param, error.code) == (400, param, code)


def test_without_a_model() -> None:
    with pytest.raises(ApiError, match="Expected a field 'model', got none"):
        transcription_request(FormData([("file", "ignored")]))


LONG = "x" * 10_000_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("response_format", LONG),
        ("temperature", LONG),
        ("stream", LONG),
        ("beam", LONG),
        ("include", LONG),
        ("x", LONG),
        (LONG, "x"),
        (f"{LONG}[]", "x"),
        ("model", "\ud800"),
        ("language", "\udfff"),
        ("x\ud800", "x"),
    ],
    ids=lambda value: repr(value[:9]),
)
def test_values_of_any_kind_give_short_refusals(name: str, value: str) -> None:
    with pytest.raises(ApiError) as caught:
        transcription_request(_form((name, value)))
    assert caught.value.status == 400
    assert len(str(caught.value)) < 1000
    assert caught.value.param is None or len(caught.value.param) <= 100
    str(caught.value).encode()


def test_channels_and_tracks() -> None:
    request = transcription_request(FormData([("model", "m"), ("channels", "each"), ("track", "2")]))
    assert request.selection == Selection("each", "2")
    for name, value in (("channels", "both"), ("track", "first"), ("channels", "0")):
        with pytest.raises(ApiError) as caught:
            transcription_request(FormData([("model", "m"), (name, value)]))
        assert (caught.value.status, caught.value.param) == (400, name)
    with pytest.raises(ApiError, match="stream=false with channels=each"):
        transcription_request(FormData([("model", "m"), ("channels", "each"), ("stream", "true")]))
