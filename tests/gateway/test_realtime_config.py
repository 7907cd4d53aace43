"""Settings of a realtime session in OpenAI's two forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moulin.gateway.api_error import ApiError
from moulin.gateway.realtime_config import FORMATS, RealtimeConfig, TurnDetection

CONFIG = RealtimeConfig("transducer", language="en")
NESTED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({}, {}, {}),
    ({"turn_detection": None}, {"turn_detection": None}, {"turn_detection": None}),
    (
        {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}},
        {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}},
        {"turn_detection": TurnDetection("semantic_vad", eagerness="high")},
    ),
    ({"format": {"type": "audio/pcma"}}, {"input_audio_format": "g711_alaw"}, {"format": FORMATS[2]}),
    (
        {"transcription": {"model": "whisper-1", "language": None}},
        {"input_audio_transcription": {"model": "whisper-1", "language": None}},
        {"model": "whisper-1", "language": None},
    ),
]


@pytest.mark.parametrize(("given", "older", "changed"), NESTED)
def test_both_forms_change_only_what_they_give(
    given: dict[str, Any], older: dict[str, Any], changed: dict[str, Any]
) -> None:
    new = CONFIG.updated({"type": "transcription", "audio": {"input": given}})
    assert new == CONFIG.updated_older(older)
    for name in ("model", "format", "turn_detection", "language", "prompt", "logprobs"):
        assert getattr(new, name) == changed.get(name, getattr(CONFIG, name))


@pytest.mark.parametrize("given", [given for given, _, _ in NESTED])
def test_what_is_shown_can_be_sent_back(given: dict[str, Any]) -> None:
    config = CONFIG.updated({"audio": {"input": given}})
    shown = config.to_dict("sess_1")
    again = RealtimeConfig("x").updated({name: shown[name] for name in ("type", "audio", "include")})
    assert again.to_dict("sess_1") == shown
    shown = config.to_older_dict("sess_1")
    accepted = {name: value for name, value in shown.items() if name not in ("id", "object")}
    assert RealtimeConfig("x").updated_older(accepted).to_older_dict("sess_1") == shown


@pytest.mark.parametrize(
    ("session", "param", "code"),
    [
        ({"type": "realtime"}, "session.type", "invalid_value"),
        ({"audio": {"input": {"sample_rate": 8000}}}, "session.audio.input.sample_rate", "unknown_parameter"),
        (
            {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 7999}}}},
            "session.audio.input.format.rate",
            None,
        ),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 2}}}},
            "session.audio.input.turn_detection.threshold",
            None,
        ),
        (7, "session", None),
    ],
)
def test_faults_are_named_by_their_path(session: Any, param: str, code: str | None) -> None:
    with pytest.raises(ApiError) as refused:
        CONFIG.updated(session)
    assert (refused.value.param, refused.value.code) == (param, code or "invalid_value")


@pytest.mark.parametrize(
    ("detection", "silence_sec"),
    [
        (None, 0.5),
        (TurnDetection(silence_duration_ms=750), 0.75),
        (TurnDetection("semantic_vad", eagerness="low"), 2.0),
        (TurnDetection("semantic_vad"), 1.2),
    ],
)
def test_the_pause_of_the_stream(detection: TurnDetection | None, silence_sec: float) -> None:
    options = RealtimeConfig("m", turn_detection=detection).stream_options
    assert options == {"endpoint": True, "rule2_min_trailing_silence_sec": silence_sec}


def test_keywords_and_the_words_of_a_prompt_are_hotwords() -> None:
    transcription = {"model": "m", "keywords": ["nvidia", "open ai"], "prompt": "moulin, nvidia"}
    session = {"audio": {"input": {"transcription": transcription}}}
    config = RealtimeConfig("m").updated(session)
    assert config.stream_options["hotwords"] == ["nvidia", "open ai"]
    heard = ["nvidia", "open ai", {"phrase": "moulin", "optional": True}]
    assert replace(config, uses_hotwords=True).stream_options["hotwords"] == heard
    assert config.to_dict("s")["audio"]["input"]["transcription"]["keywords"] == ["nvidia", "open ai"]
    older = config.updated_older({"input_audio_transcription": {"keywords": None, "prompt": None}})
    assert "hotwords" not in older.stream_options
    for wrong in (["a"] * 1001, ["a" * 101], [""], "nvidia", [1]):
        with pytest.raises(ApiError, match="keywords"):
            config.updated({"audio": {"input": {"transcription": {"keywords": wrong}}}})
