from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import FormData

from moulin.audio.selection import Selection
from moulin.client.served_model import ServedModel
from moulin.errors import OptionsError
from moulin.gateway.api_error import ApiError
from moulin.gateway.ignored_fields import IgnoredFields
from moulin.gateway.transcription_request import transcription_request


def _form(*fields: tuple[str, str]) -> FormData:
    return FormData([("model", "whisper-1"), ("file", "ignored"), *fields])


def test_lists_come_with_brackets_or_without() -> None:
    for name in ("timestamp_granularities[]", "timestamp_granularities"):
        form = _form((name, "word"), (name, "segment"), ("response_format", "verbose_json"))
        assert transcription_request(form).timestamp_granularities == ("word", "segment")


def test_two_values_of_one_field() -> None:
    assert transcription_request(_form(("model", "whisper-1"), ("user", "a"), ("user", "b"))).model == "whisper-1"
    with pytest.raises(ApiError, match=r"Expected one response_format, got 'srt' and 'json'") as caught:
        transcription_request(_form(("response_format", "srt"), ("response_format", "json")))
    assert caught.value.param == "response_format"


def test_fields_in_the_address() -> None:
    """They would be overlooked."""
    for name, value in [("channels", "each"), ("model", "other"), ("keywords[]", "nine"), ("diarize", "true")]:
        with pytest.raises(ApiError) as caught:
            transcription_request(_form(), [(name, value)])
        assert caught.value.param == name.removesuffix("[]")
    request = transcription_request(_form(("user", "a")), [("model", "whisper-1"), ("api-version", "1"), ("user", "b")])
    assert request.others == ("user", "api-version")


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
        ([("channel", "each")], "channel", "unknown_parameter"),
        ([("diarize", "true")], "diarize", "unsupported_value"),
        ([("task", "translate")], "task", "unsupported_value"),
        ([("translate", "1")], "translate", "unsupported_value"),
        ([("response_format", "diarized_json")], "response_format", "unsupported_value"),
        (
            [("response_format", "diarized_json"), ("channels", "each"), ("known_speaker_names[]", "Ann")],
            *("known_speaker_names", "unsupported_value"),
        ),
        ([("response_format", "xml")], "response_format", "invalid_value"),
        ([("temperature", "2")], "temperature", "invalid_value"),
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
    verbose = [("stream", "true"), ("response_format", "verbose_json"), ("include[]", "peaks")]
    assert transcription_request(_form(("channels", "each"), *verbose)).include == ("peaks",)
    with pytest.raises(ApiError, match="Expected stream=true and response_format verbose_json"):
        transcription_request(_form(*verbose[1:]))


ENGLISH = ServedModel("m", False, 30.0, uses_hotwords=True, languages=("en",))
UNKNOWN = ServedModel("m", False, 30.0)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [("language", ""), ("prompt", ""), ("temperature", ""), ("timestamp_granularities[]", ""), ("seed", "")],
        [("language", "en"), ("languages[]", "de"), ("languages[]", "en-GB"), ("prompt", "moulin, nvidia")],
        [("temperature", "0"), ("chunking_strategy", "auto"), ("stream", "false")],
        [("timestamp_granularities[0]", "word"), ("response_format", "verbose_json")],
    ],
)
def test_what_is_used_or_not_given_is_not_ignored(fields: list[tuple[str, str]]) -> None:
    assert list(transcription_request(_form(*fields)).ignored(ENGLISH)) == []


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ([("seed", "7"), ("user", "ann"), ("vad_filter", "true")], ["seed", "user", "vad_filter"]),
        ([("stream_include_usage", "true"), ("stream_options[include_usage]", "true")], None),
        ([("diarize", "false"), ("task", "transcribe")], ["diarize", "task"]),
        ([("prompt", "The patient is 80 years old."), ("temperature", "0.2")], ["prompt", "temperature"]),
        ([("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "0.5")], ["chunking_strategy"]),
        ([("known_speaker_names[]", "Ann"), ("known_speaker_references[]", "data:")], None),
        ([("timestamp_granularities[]", "word")], ["timestamp_granularities"]),
        ([("language", "english"), ("languages", "auto")], ["language", "languages"]),
        ([("x[y][z]", "1"), ("x[", "2"), ("]", "3")], ["x[y][z]", "x[", "]"]),
    ],
)
def test_what_changes_nothing_is_named(fields: list[tuple[str, str]], ignored: list[str] | None) -> None:
    names = list(transcription_request(_form(*fields)).ignored(ENGLISH))
    assert names == (ignored or [name.split("[")[0] for name, _ in fields])


def test_a_language_that_the_model_does_not_hear_is_refused() -> None:
    for fields, param in (
        ([("language", "de")], "language"),
        ([("languages[]", "fr"), ("languages[]", "de")], "languages"),
    ):
        request = transcription_request(_form(*fields))
        with pytest.raises(ApiError, match="Expected a recording in en") as caught:
            list(request.ignored(ENGLISH))
        assert caught.value.param == param
        assert list(request.ignored(UNKNOWN)) == [param]


def test_names_of_any_length_change_nothing() -> None:
    request = transcription_request(_form(("x", LONG), (LONG, "x"), (f"{LONG}[]", "x")))
    assert len(request.others) == 2
    headers = IgnoredFields(strict=False).note(request.ignored(ENGLISH))
    assert len(headers["x-moulin-ignored"]) < 200
