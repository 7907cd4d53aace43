"""Responses, parsed by the types of OpenAI's own client."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from openai.types.audio import (
    Transcription,
    TranscriptionDiarized,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
)
from starlette.datastructures import FormData

from moulin.errors import OptionsError
from moulin.gateway.api_error import ApiError
from moulin.gateway.transcription_formats import (
    delta_event,
    done_event,
    response,
    verbose_done_event,
    words_event,
)
from moulin.gateway.transcription_request import TranscriptionRequest, transcription_request
from moulin.transcript import Alternative, Part, PlacedWord, Transcript, Word

HEARD = Transcript("ÉTÉ TWO", (Word("ÉTÉ", 0.2, 0.52, 0.5), Word("TWO", 0.6, 0.84, 0.25)), 2.345)


def _request(*fields: tuple[str, str]) -> TranscriptionRequest:
    return transcription_request(FormData([("model", "m"), *fields]))


def _body(*fields: tuple[str, str]) -> bytes:
    return bytes(response(HEARD, _request(*fields)).body)


def test_json() -> None:
    found = Transcription.model_validate_json(_body(("include[]", "logprobs")))
    assert found.text == HEARD.text
    assert [(entry.token, bytes(map(int, entry.bytes or ())).decode()) for entry in found.logprobs or ()] == [
        ("ÉTÉ", "ÉTÉ"),
        ("TWO", "TWO"),
    ]
    assert [entry.logprob for entry in found.logprobs or ()] == pytest.approx([math.log(0.5), math.log(0.25)], abs=1e-4)
    assert json.loads(_body())["usage"] == {"type": "duration", "seconds": 3}


def test_verbose_json() -> None:
    both = [("timestamp_granularities[]", name) for name in ("word", "segment")]
    found = TranscriptionVerbose.model_validate_json(_body(("response_format", "verbose_json"), *both))
    assert [(word.word, word.start, word.end) for word in found.words or ()] == [("ÉTÉ", 0.2, 0.52), ("TWO", 0.6, 0.84)]
    assert found.segments is not None
    (segment,) = found.segments
    assert (segment.text, segment.start, segment.seek) == (HEARD.text, 0.2, 20)
    assert segment.avg_logprob == pytest.approx((math.log(0.5) + math.log(0.25)) / 2, abs=1e-4)


def test_alternatives() -> None:
    heard = replace(HEARD, alternatives=(Alternative(HEARD.text, HEARD.words, -1.5), Alternative("TWO", (), -2.0)))
    wanted = _request(("response_format", "verbose_json"), ("nbest", "2"))
    assert wanted.decoding_changes(with_prompt=False) == {"nbest": 2}
    found = json.loads(bytes(response(heard, wanted).body))
    assert found["alternatives"] == heard.to_dict()["alternatives"]
    assert [one["score"] for one in found["alternatives"]] == [-1.5, -2.0]
    parts = replace(HEARD, parts=(Part(heard.alternatives),))
    assert json.loads(bytes(response(parts, wanted).body))["parts"] == parts.to_dict()["parts"]
    with pytest.raises(ApiError, match="Expected response_format verbose_json with nbest, got json"):
        _request(("nbest", "2"))
    assert _request(("nbest", "1")).nbest == 1
    with pytest.raises(OptionsError, match="Expected nbest of 1 to 10, got 11"):
        _request(("response_format", "verbose_json"), ("nbest", "11")).decoding_changes(with_prompt=False)


def test_text_and_subtitles() -> None:
    assert _body(("response_format", "text")).decode() == "ÉTÉ TWO\n"
    assert _body(("response_format", "srt")).startswith(b"1\n00:00:00,200 --> ")
    assert _body(("response_format", "vtt")).startswith(b"WEBVTT\n")


def test_events() -> None:
    delta = TranscriptionTextDeltaEvent.model_validate_json(delta_event(" TWO").removeprefix(b"data: "))
    assert delta.delta == " TWO"
    done = TranscriptionTextDoneEvent.model_validate_json(done_event(HEARD, _request()).removeprefix(b"data: "))
    assert done.text == HEARD.text


def test_events_with_words() -> None:
    """OpenAI's events, with more in them."""
    peaks = [{"first": 0, "a_second": 50, "values": "AAA="}]
    event = words_event(" TWO", HEARD.words[1:], 0.84, peaks).removeprefix(b"data: ")
    assert TranscriptionTextDeltaEvent.model_validate_json(event).delta == " TWO"
    fields = json.loads(event)
    assert fields["words"] == [{"word": "TWO", "start": 0.6, "end": 0.84, "confidence": 0.25}]
    assert (fields["heard_sec"], fields["peaks"]) == (0.84, peaks)
    wanted = _request(("response_format", "verbose_json"), ("timestamp_granularities[]", "word"), ("stream", "true"))
    last = verbose_done_event(HEARD, wanted).removeprefix(b"data: ")
    assert TranscriptionTextDoneEvent.model_validate_json(last).text == HEARD.text
    whole = json.loads(bytes(response(HEARD, wanted).body))
    assert whole.pop("usage")["type"] == "duration"  # OpenAI's event has tokens there
    assert json.loads(last) == {"type": "transcript.text.done", **whole}


def test_warnings_and_channels() -> None:
    words = (PlacedWord("ONE", 0.2, 0.24, 0.5, 1, None), PlacedWord("TWO", 0.3, 0.34, 0.5, 2, None))
    heard = Transcript("ONE TWO", words, 2.0, ("the file is cut short",))
    plain = json.loads(bytes(response(heard, _request()).body))
    assert plain["warnings"] == ["the file is cut short"]
    assert "warnings" not in json.loads(_body())
    fields = [("response_format", "verbose_json"), ("timestamp_granularities[]", "word")]
    verbose = json.loads(bytes(response(heard, _request(*fields, ("timestamp_granularities[]", "segment"))).body))
    assert verbose["warnings"] == ["the file is cut short"]
    assert [word["channel"] for word in verbose["words"]] == [1, 2]
    assert [(segment["text"], segment["channel"]) for segment in verbose["segments"]] == [("ONE", 1), ("TWO", 2)]
    assert json.loads(done_event(heard, _request()).removeprefix(b"data: "))["warnings"] == ["the file is cut short"]


def test_a_speaker_for_each_channel() -> None:
    words = tuple(
        PlacedWord(f"W{number}", start, start + 0.5, 0.9, channel=channel, track=None)
        for number, (channel, start) in enumerate([(2, 0.0), (2, 0.6), (2, 3.0), (1, 4.0), (2, 4.6)])
    )
    heard = Transcript(" ".join(word.word for word in words), words, 9.0)
    request = _request(("response_format", "diarized_json"), ("channels", "each"))
    found = TranscriptionDiarized.model_validate_json(bytes(response(heard, request).body))
    assert (found.task, found.duration, found.text) == ("transcribe", 9.0, heard.text)
    assert [(segment.speaker, segment.start, segment.end, segment.text) for segment in found.segments] == [
        ("B", 0.0, 1.1, "W0 W1"),
        ("B", 3.0, 3.5, "W2"),
        ("A", 4.0, 4.5, "W3"),
        ("B", 4.6, 5.1, "W4"),
    ]
    assert len({segment.id for segment in found.segments}) == 4
