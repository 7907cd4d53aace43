"""The realtime session without a socket: what it says, in every order that clients come up with."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from openai.types.beta.realtime import RealtimeServerEvent as OlderServerEvent
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from moulin.client.served_model import ServedModel
from moulin.errors import ClientError, ServerBusy
from moulin.gateway.ignored_fields import IgnoredFields
from moulin.gateway.live_steps import Event, Find, Forget, Hear, Step
from moulin.gateway.realtime_config import RealtimeConfig
from moulin.gateway.realtime_session import MAX_APPEND_BYTES, RealtimeSession
from moulin.live_transcript import Segment, StreamUpdate
from moulin.transcript import Word

EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
OLDER_EVENT: TypeAdapter[Any] = TypeAdapter(OlderServerEvent)

Said = dict[str, float]
"""Words and when, in seconds of the stream on Triton, they begin; each is 0.2 s long."""
NOTHING = StreamUpdate((), False, False, 0.0)


def _segment(number: int, said: Said, *, final: bool) -> Segment:
    words = tuple(Word(word, start, round(start + 0.2, 3), 0.5) for word, start in said.items())
    return Segment(number, " ".join(said), words, final)


def _update(*closed: Said, growing: Said | None = None, last: bool = False) -> StreamUpdate:
    segments = [_segment(number, said, final=True) for number, said in enumerate(closed)]
    if growing:
        segments.append(_segment(len(closed), growing, final=False))
    return StreamUpdate(tuple(segments), bool(closed), last, 1.0)


MODELS = {
    "digits": ServedModel("digits", True, 30.0, languages=("en",)),
    "letters": ServedModel("letters", True, 30.0),
    "gpt-realtime-whisper": ServedModel("digits", True, 30.0, languages=("en",)),
}


class Client:
    """Sends events, answers what the session asks of Triton from a script, and checks every event against the SDK's."""

    def __init__(
        self, *, older: bool = False, turn_detection: bool = True, config: RealtimeConfig | None = None
    ) -> None:
        numbers = itertools.count(1)
        self.session = RealtimeSession(
            config or RealtimeConfig.of_name("digits", MODELS["digits"]),
            older=older,
            new_id=lambda kind: f"{kind}_{next(numbers)}",
        )
        self.older = older
        self.heard: list[Hear] = []
        self.forgotten = 0
        self._script: list[StreamUpdate | Exception] = []
        self.hello = self._taken(self.session.opening())
        if not turn_detection:
            self.send("session.update", session={"audio": {"input": {"turn_detection": None}}})

    def will_hear(self, *script: StreamUpdate | Exception) -> None:
        """What comes of the next pieces; nothing comes of those behind them."""
        self._script = list(script)

    def send(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        return self.send_raw(json.dumps({"type": kind, **fields}))

    def send_raw(self, message: str | bytes) -> list[dict[str, Any]]:
        return self._taken(self.session.receive(message))

    def say(self, seconds: float = 0.1) -> list[dict[str, Any]]:
        """Append as much audio, of 24 kHz."""
        return self.send("input_audio_buffer.append", audio=_base64(seconds))

    def rest(self) -> list[dict[str, Any]]:
        return self._taken(self.session.rest())

    def _taken(self, steps: Iterable[Step]) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        for step in steps:
            if isinstance(step, Event):
                events.append(self._checked(step.fields))
            elif isinstance(step, Forget):
                self.forgotten += 1
            elif isinstance(step, Find):
                step.model = MODELS.get(step.name)
            elif isinstance(step, Hear):
                events += self._taken(self._answer(step))
        return events

    def _answer(self, step: Hear) -> Iterable[Event]:
        self.heard.append(step)
        reply = self._script.pop(0) if self._script else NOTHING
        return self.session.failed(reply) if isinstance(reply, Exception) else self.session.heard(step, reply)

    def _checked(self, fields: dict[str, Any]) -> dict[str, Any]:
        kind = fields["type"]
        # "warning" is moulin's own, and rates other than OpenAI's are.
        own = kind == "warning" or '"rate": 16000' in json.dumps(fields)
        if not (own or kind.startswith("transcription_session")):  # whose type in the SDK knows no models but OpenAI's
            adapter = OLDER_EVENT if self.older else EVENT
            assert adapter.validate_python(json.loads(json.dumps(fields))).type == kind
        return fields


def _base64(seconds: float) -> str:
    return base64.b64encode(np.full(round(seconds * 24_000), 1000, "<i2").tobytes()).decode()


def _kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].replace("conversation.item.input_audio_transcription", "transcription") for event in events]


def _deltas(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"].endswith(".delta"))


def _only(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (event,) = [event for event in events if event["type"].endswith(kind)]
    return event


def _refused(events: list[dict[str, Any]]) -> dict[str, Any]:
    (event,) = events
    assert event["type"] == "error"
    error: dict[str, Any] = event["error"]
    return error


def test_the_session_introduces_itself() -> None:
    (created,) = Client().hello
    assert created["type"] == "session.created"
    assert created["session"] == {
        "id": "sess_1",
        "object": "realtime.transcription_session",
        "type": "transcription",
        "include": None,
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "noise_reduction": None,
                "transcription": {"model": "digits", "language": None, "prompt": None},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                },
            }
        },
    }


def test_a_turn_with_turn_detection() -> None:
    client = Client()
    client.will_hear(
        NOTHING,
        _update(growing={"ONE": 0.5}),
        _update(growing={"ONE": 0.5, "TW": 0.9}),
        _update(growing={"ONE": 0.5, "TWO": 0.9}),
        _update({"ONE": 0.5, "TWO": 0.9}),
    )
    assert client.say(0.5) == []
    began = client.say(0.5)
    assert _kinds(began) == ["input_audio_buffer.speech_started", "conversation.item.added"]
    assert began[0]["audio_start_ms"] == 200  # 300 ms before the first word
    assert began[1]["item"]["status"] == "in_progress"
    assert began[1]["previous_item_id"] is None

    assert _deltas(client.say(0.5)) == "ONE"
    assert client.say(0.5) == []  # the last word may still change
    ended = client.say(0.5)
    assert _kinds(ended) == [
        "transcription.delta",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "transcription.completed",
        "conversation.item.done",
    ]
    assert _deltas(ended) == " TWO"
    assert ended[1]["audio_end_ms"] == 1600  # the last word's end and half a second
    assert ended[3]["transcript"] == "ONE TWO"
    assert ended[3]["usage"] == {"type": "duration", "seconds": 1.4}
    assert ended[3]["words"][1] == {"word": "TWO", "start_sec": 0.9, "end_sec": 1.1, "confidence": 0.5}
    assert ended[4]["item"]["content"] == [{"type": "input_audio", "transcript": "ONE TWO"}]
    assert {event["item_id"] for event in (began[0], *ended[:4])} == {began[1]["item"]["id"]}


def test_two_turns_in_one_update_follow_each_other() -> None:
    client = Client()
    client.will_hear(_update({"ONE": 0.5}, {"TWO": 2.0}, growing={"THREE": 4.0}))
    events = client.say(5)
    assert _kinds(events) == [
        *("input_audio_buffer.speech_started", "conversation.item.added", "transcription.delta"),
        *("input_audio_buffer.speech_stopped", "input_audio_buffer.committed"),
        *("transcription.completed", "conversation.item.done"),
    ] * 2 + ["input_audio_buffer.speech_started", "conversation.item.added"]
    first, second, third = (event for event in events if event["type"] == "conversation.item.added")
    assert second["previous_item_id"] == first["item"]["id"]
    assert third["previous_item_id"] == second["item"]["id"]
    starts = [e["audio_start_ms"] for e in events if "audio_start_ms" in e]
    stops = [e["audio_end_ms"] for e in events if "audio_end_ms" in e]
    assert (starts, stops) == ([200, 1700, 3700], [1200, 2700])


def test_a_cut_without_a_pause_does_not_end_the_turn() -> None:
    """The recogniser closes what has become too long, and its last word moves into the next segment."""
    client = Client()
    client.will_hear(
        _update(growing={"ONE": 0.5, "TWO": 0.9, "THR": 1.3}),
        _update({"ONE": 0.5, "TWO": 0.9}, growing={"THREE": 1.3}),
        _update({"THREE": 1.3, "FOUR": 1.7}),
    )
    events = client.say(1) + client.say(1) + client.say(1)
    assert _deltas(events) == "ONE TWO THREE FOUR"
    assert _only(events, ".completed")["transcript"] == "ONE TWO THREE FOUR"
    assert _kinds(events).count("input_audio_buffer.speech_started") == 1


def test_commits_without_turn_detection() -> None:
    client = Client(turn_detection=False)
    client.will_hear(
        _update(growing={"ONE": 0.5, "TWO": 0.9}),
        _update({"ONE": 0.5, "TWO": 0.9}),  # a pause: what was said is final, the turn is not
        _update(growing={"THREE": 3.0}),
        _update({"THREE": 3.0}, last=True),
    )
    assert _kinds(client.say(1)) == ["conversation.item.added", "transcription.delta"]
    assert _deltas(client.say(1)) == " TWO"
    assert client.say(1) == []
    events = client.send("input_audio_buffer.commit")
    assert _kinds(events) == [
        "input_audio_buffer.committed",
        "transcription.delta",
        "transcription.completed",
        "conversation.item.done",
    ]
    assert _deltas(events) == " THREE"
    assert events[2]["transcript"] == "ONE TWO THREE"
    assert events[2]["usage"]["seconds"] == 3.0
    assert [step.end for step in client.heard] == [None, None, None, "commit"]

    client.will_hear(_update(growing={"FOUR": 0.25}), _update({"FOUR": 0.25}, last=True))
    events = client.say(1) + client.send("input_audio_buffer.commit")
    assert events[0]["previous_item_id"] == _only(events, ".done")["previous_item_id"] is not None
    # Times count from the beginning of the session, not of the second stream on Triton.
    assert _only(events, ".completed")["words"][0]["start_sec"] == 3.25


def test_a_commit_of_silence_is_an_empty_item() -> None:
    client = Client(turn_detection=False)
    client.say(1)
    events = client.send("input_audio_buffer.commit")
    assert _kinds(events) == [
        "conversation.item.added",
        "input_audio_buffer.committed",
        "transcription.completed",
        "conversation.item.done",
    ]
    assert events[2]["transcript"] == ""


def test_a_commit_while_turn_detection_is_on_ends_the_turn() -> None:
    client = Client()
    client.will_hear(_update(growing={"ONE": 0.5}), _update({"ONE": 0.5}, {"TWO": 2.0}, last=True))
    client.say(1)
    events = client.send("input_audio_buffer.commit")
    assert _kinds(events) == [
        "input_audio_buffer.committed",
        "transcription.delta",
        "transcription.delta",
        "transcription.completed",
        "conversation.item.done",
    ]
    assert _only(events, ".completed")["transcript"] == "ONE TWO" == _deltas(events)


@pytest.mark.parametrize("turn_detection", [True, False])
def test_a_commit_of_nothing_is_refused(turn_detection: bool) -> None:
    client = Client(turn_detection=turn_detection)
    for _ in range(2):
        error = _refused(client.send("input_audio_buffer.commit", event_id="mine"))
        assert error["code"] == "input_audio_buffer_commit_empty"
        assert error["event_id"] == "mine"
        assert "buffer only has 0.00ms of audio" in error["message"]
    client.say(0.05)
    assert "buffer only has 50.00ms of audio" in _refused(client.send("input_audio_buffer.commit"))["message"]
    client.say(0.05)
    assert _kinds(client.send("input_audio_buffer.commit"))[-1] == "conversation.item.done"
    assert _refused(client.send("input_audio_buffer.commit"))["code"] == "input_audio_buffer_commit_empty"


def test_clearing_takes_an_announced_item_back() -> None:
    client = Client()
    client.will_hear(_update(growing={"ONE": 0.5, "TWO": 0.9}))
    (item_id,) = {event["item"]["id"] for event in client.say(1) if event["type"] == "conversation.item.added"}
    events = client.send("input_audio_buffer.clear")
    assert _kinds(events) == ["conversation.item.deleted", "input_audio_buffer.cleared"]
    assert events[0]["item_id"] == item_id
    assert client.forgotten == 1
    assert _refused(client.send("input_audio_buffer.commit"))["code"] == "input_audio_buffer_commit_empty"
    client.will_hear(_update(growing={"THREE": 0.5}))
    started, added = client.say(1)
    assert started["audio_start_ms"] == 1200
    assert added["previous_item_id"] is None  # the deleted one is none


def test_clearing_nothing() -> None:
    assert _kinds(Client().send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]


def test_clearing_forgets_audio_that_was_not_worth_a_request_yet() -> None:
    client = Client(turn_detection=False)
    client.say(0.09)
    client.send("input_audio_buffer.clear")
    client.say(0.09)
    client.say(0.02)
    assert sum(len(step.samples) for step in client.heard) <= 0.11 * 16_000


def test_when_the_audio_stops_coming_a_detected_turn_ends() -> None:
    client = Client()
    client.will_hear(_update(growing={"ONE": 0.5}), _update({"ONE": 0.5}, last=True))
    client.say(1)
    events = client.rest()
    assert _kinds(events) == [
        "transcription.delta",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "transcription.completed",
        "conversation.item.done",
    ]
    assert events[1]["audio_end_ms"] == 1000
    assert client.session.is_resting
    assert client.rest() == []


def test_when_the_audio_stops_coming_a_turn_of_the_clients_goes_on() -> None:
    client = Client(turn_detection=False)
    client.will_hear(_update(growing={"ONE": 0.5}), _update({"ONE": 0.5}, last=True))
    client.say(1)
    assert _deltas(client.rest()) == "ONE"
    client.will_hear(_update(growing={"TWO": 0.5}), _update({"TWO": 0.5}, last=True))
    client.say(1)
    events = client.send("input_audio_buffer.commit")
    assert _deltas(events) == " TWO"
    completed = _only(events, ".completed")
    assert completed["transcript"] == "ONE TWO"
    assert [word["start_sec"] for word in completed["words"]] == [0.5, 1.5]


def test_a_commit_after_a_rest_needs_no_stream() -> None:
    client = Client(turn_detection=False)
    client.will_hear(_update(growing={"ONE": 0.5}), _update({"ONE": 0.5}, last=True))
    client.say(1)
    client.rest()
    assert _only(client.send("input_audio_buffer.commit"), ".completed")["transcript"] == "ONE"
    assert len(client.heard) == 2


def test_settings_change_what_they_name_and_nothing_else() -> None:
    client = Client()
    first = {"type": "transcription", "audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 0.7}}}}
    second = {"audio": {"input": {"transcription": {"model": "letters", "language": "en", "prompt": "A B C"}}}}
    client.send("session.update", session=first)
    (updated,) = client.send("session.update", session=second)
    shown = updated["session"]["audio"]["input"]
    assert shown["turn_detection"]["threshold"] == 0.7
    assert shown["transcription"] == {"model": "letters", "language": "en", "prompt": "A B C"}
    assert shown["format"] == {"type": "audio/pcm", "rate": 24000}
    client.say(1)
    assert client.heard[0].model == "letters"


@pytest.mark.parametrize(
    ("detection", "silence_sec"),
    [
        ({"type": "server_vad"}, 0.5),
        ({"type": "server_vad", "silence_duration_ms": 900, "create_response": True}, 0.9),
        ({"type": "semantic_vad"}, 1.2),
        ({"type": "semantic_vad", "eagerness": "low"}, 2.0),
        (None, 0.5),
    ],
)
def test_turn_detection_becomes_the_recognisers_rule(detection: dict[str, Any] | None, silence_sec: float) -> None:
    client = Client()
    client.send("session.update", session={"audio": {"input": {"turn_detection": detection}}})
    client.say(1)
    assert client.heard[0].options == {
        "endpoint": True,
        "rule2_min_trailing_silence_sec": silence_sec,
    }


def test_settings_of_the_stream_end_it_and_hold_for_the_next() -> None:
    client = Client()
    client.will_hear(_update(growing={"ONE": 0.5}), _update({"ONE": 0.5}, last=True))
    client.say(1)
    slower = {"type": "server_vad", "silence_duration_ms": 900}
    events = client.send("session.update", session={"audio": {"input": {"turn_detection": slower}}})
    assert _kinds(events)[-3:] == ["transcription.completed", "conversation.item.done", "session.updated"]
    client.say(1)
    assert [step.end for step in client.heard] == [None, "rest", None]
    assert client.heard[2].options["rule2_min_trailing_silence_sec"] == 0.9


def test_turn_detection_ends_a_turn_that_the_client_began() -> None:
    client = Client(turn_detection=False)
    client.will_hear(_update(growing={"ONE": 0.5}), _update({"ONE": 0.5}, last=True))
    client.say(1)
    events = client.send("session.update", session={"audio": {"input": {"turn_detection": {"type": "server_vad"}}}})
    assert _kinds(events) == [
        "transcription.delta",
        "input_audio_buffer.committed",
        "transcription.completed",
        "conversation.item.done",
        "session.updated",
    ]
    client.will_hear(_update(growing={"TWO": 0.5}))
    assert _kinds(client.say(1)) == ["input_audio_buffer.speech_started", "conversation.item.added"]


def test_settings_that_do_not_concern_the_stream_leave_it_alone() -> None:
    client = Client()
    client.say(1)
    session = {"audio": {"input": {"transcription": {"language": "en"}}}, "include": None}
    assert _kinds(client.send("session.update", session=session)) == ["session.updated"]
    assert not client.session.is_resting


@pytest.mark.parametrize(("name", "bytes_a_second"), [("audio/pcmu", 8_000), ("audio/pcma", 8_000)])
def test_telephone_audio(name: str, bytes_a_second: int) -> None:
    client = Client(turn_detection=False)
    client.say(0.05)  # of 24 kHz, and not to be lost
    client.send("session.update", session={"audio": {"input": {"format": {"type": name}}}})
    client.send("input_audio_buffer.append", audio=base64.b64encode(b"\xd5" * bytes_a_second).decode())
    client.send("input_audio_buffer.commit")
    assert sum(len(step.samples) for step in client.heard) == pytest.approx(1.05 * 16_000, abs=2)
    assert client.session.received_sec == 1.05


def test_log_probabilities_where_they_are_asked_for() -> None:
    client = Client()
    client.send("session.update", session={"include": ["item.input_audio_transcription.logprobs"]})
    client.will_hear(_update({"ÄH": 0.5}))
    events = client.say(1)
    expected = [{"token": "ÄH", "bytes": [195, 132, 72], "logprob": pytest.approx(np.log(0.5))}]
    assert _only(events, ".delta")["logprobs"] == expected
    assert _only(events, ".completed")["logprobs"] == expected


def _session(**input_settings: Any) -> str:
    return json.dumps(
        {"type": "session.update", "session": {"type": "transcription", "audio": {"input": input_settings}}}
    )


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("", "invalid_json", None),
        ("{", "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        ("[" * 100_000, "invalid_json", None),
        ("[]", "invalid_event", None),
        ('"session.update"', "invalid_event", None),
        ("{}", "missing_required_parameter", "type"),
        ('{"type": "response.create"}', "invalid_value", "type"),
        ('{"type": {"a": 1}}', "invalid_value", "type"),
        ('{"type": "input_audio_buffer.append"}', "missing_required_parameter", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": 7}', "invalid_type", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "%%%%"}', "invalid_audio", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "äöü="}', "invalid_audio", "audio"),
        ('{"type": "session.update"}', "missing_required_parameter", "session"),
        ('{"type": "session.update", "session": []}', "invalid_value", "session"),
        ('{"type": "session.update", "session": {"type": "realtime"}}', "invalid_value", "session.type"),
        (
            '{"type": "session.update", "session": {"input_audio_format": "pcm16"}}',
            *("unknown_parameter", "session.input_audio_format"),
        ),
        ('{"type": "transcription_session.update", "session": {"audio": {}}}', "unknown_parameter", "session.audio"),
        (_session(rate=8000), "unknown_parameter", "session.audio.input.rate"),
        (
            _session(format={"type": "audio/pcm", "rate": 7000}),
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (_session(format={"type": "audio/mp3"}), "invalid_value", "session.audio.input.format"),
        (_session(turn_detection={}), "invalid_value", "session.audio.input.turn_detection"),
        (
            _session(turn_detection={"type": "server_vad", "silence_duration_ms": -5}),
            "invalid_value",
            "session.audio.input.turn_detection.silence_duration_ms",
        ),
        (_session(transcription={"model": "whale-song"}), "model_not_found", None),
        (_session(transcription={"model": "digits", "language": "de"}), "invalid_value", "language"),
        (
            '{"type": "transcription_session.update", "session": {"input_audio_format": "mp3"}}',
            "invalid_value",
            "session.input_audio_format",
        ),
    ],
)
def test_mistakes_are_explained_and_survived(message: str | bytes, code: str, param: str | None) -> None:
    client = Client()
    error = _refused(client.send_raw(message))
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    client.will_hear(_update({"ONE": 0.5}))
    assert _only(client.say(1), ".completed")["transcript"] == "ONE"
    assert client.heard[0].model == "digits"


def test_no_more_audio_in_an_event_than_openai_takes() -> None:
    error = _refused(Client().send("input_audio_buffer.append", audio="A" * (MAX_APPEND_BYTES + 4)))
    assert error["code"] == "audio_too_large"


@pytest.mark.parametrize("send", [lambda c: c.say(0), lambda c: c.send("input_audio_buffer.append", audio="")])
def test_no_audio_is_no_mistake(send: Callable[[Client], list[dict[str, Any]]]) -> None:
    client = Client()
    assert send(client) == []
    assert client.heard == []


def test_samples_of_another_format_are_doubted_once() -> None:
    client = Client()
    floats = np.sin(np.arange(24_000 * 6) * 0.05).astype("<f4").tobytes()
    messages = [
        message
        for first in range(0, len(floats), 9600)
        for message in client.send(
            "input_audio_buffer.append",
            audio=base64.b64encode(floats[first : first + 9600]).decode(),
            event_id=f"event_{first}",
        )
    ]
    (warning,) = messages
    assert (warning["type"], warning["code"], warning["param"]) == ("warning", "sample_format", "audio")
    assert "f32le, not s16le" in warning["message"]
    assert client.heard, "it goes on"


def test_what_changes_nothing_is_named() -> None:
    client = Client()
    given = {
        "type": "transcription",
        "voice": "x",
        "audio": {
            "output": {"voice": "y"},
            "input": {
                "noise_reduction": {"type": "near_field"},
                "transcription": {"model": "digits", "language": "en", "delay": "low", "colour": "red"},
                "turn_detection": {"type": "server_vad", "eagerness": "low", "idle_timeout_ms": 5000},
            },
        },
    }
    (updated,) = client.send("session.update", session=given)
    assert sorted(updated["ignored"]) == [
        "session.audio.input.noise_reduction.type",
        "session.audio.input.transcription.colour",
        "session.audio.input.transcription.delay",
        "session.audio.input.turn_detection.eagerness",
        "session.audio.input.turn_detection.idle_timeout_ms",
        "session.audio.output",
        "session.voice",
    ]
    (updated,) = client.send("session.update", session={"audio": {"input": {"transcription": {"prompt": "a"}}}})
    assert "ignored" not in updated
    (updated,) = client.send("session.update", session={str(number) * 1000: 1 for number in range(10_000)})
    assert len(json.dumps(updated)) < 20_000
    strict = RealtimeSession(RealtimeConfig("digits"), ignored=IgnoredFields(strict=True))
    (refused,) = strict.receive('{"type": "session.update", "session": {"voice": "x"}}')
    assert isinstance(refused, Event)
    assert refused.fields["error"]["param"] == "session.voice"


def test_languages_that_cannot_be_compared_are_named() -> None:
    client = Client()
    session = {"audio": {"input": {"transcription": {"model": "letters", "language": "de", "languages": ["fr"]}}}}
    (updated,) = client.send("session.update", session=session)
    assert updated["ignored"] == ["language", "languages"]
    assert updated["session"]["audio"]["input"]["transcription"]["languages"] == ["fr"]


def test_names_that_openai_serves_without_turn_detection() -> None:
    """LiveKit leaves the field out for them, and commits by its own detector; other names get the usual detection."""

    def detection(*updates: dict[str, Any], config: RealtimeConfig | None = None) -> Any:
        client = Client(config=config)
        for given in updates:
            (updated,) = client.send("session.update", session={"audio": {"input": given}})
        return updated["session"]["audio"]["input"]["turn_detection"] and True

    live: dict[str, Any] = {"transcription": {"model": "gpt-realtime-whisper"}}
    plain: dict[str, Any] = {"transcription": {"model": "digits"}}
    vad: dict[str, Any] = {"turn_detection": {"type": "server_vad"}}
    assert detection(live) is None
    assert detection(plain) is True
    assert detection(live, plain) is True
    assert detection(live | vad) is True
    assert detection(vad, live) is True
    assert detection({"turn_detection": None}, plain) is None
    assert detection({"turn_detection": {"type": "none"}}) is None
    named = RealtimeConfig.of_name("gpt-live-transcribe", MODELS["digits"])
    assert detection({}, config=named) is None
    assert detection(vad, config=named) is True


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_rates(rate: int) -> None:
    client = Client(turn_detection=False)
    audio_input = {"format": {"type": "audio/pcm", "rate": rate}}
    (updated,) = [step.fields for step in client.session.receive(_session(**audio_input)) if isinstance(step, Event)]
    assert updated["session"]["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": rate}
    second = base64.b64encode(np.full(rate, 1000, "<i2").tobytes()).decode()
    client.send("input_audio_buffer.append", audio=second)
    client.send("input_audio_buffer.commit")
    assert sum(len(step.samples) for step in client.heard) == pytest.approx(16_000, abs=200)


def test_half_a_sample_waits_for_its_other_half() -> None:
    client = Client(turn_detection=False)
    pcm = base64.b64decode(_base64(0.5))
    for part in (pcm[:1001], pcm[1001:]):
        assert client.send("input_audio_buffer.append", audio=base64.b64encode(part).decode()) == []
    assert client.session.received_sec == 0.5


def test_a_failure_costs_the_turn_and_not_the_session() -> None:
    client = Client()
    client.will_hear(_update(growing={"ONE": 0.5, "TWO": 0.9}), ClientError("Recognition failed"))
    client.say(1)
    failed, error = client.say(1)
    assert failed["type"] == "conversation.item.input_audio_transcription.failed"
    assert failed["error"]["code"] == error["error"]["code"] == "recognition_failed"
    assert error["error"]["type"] == "server_error"
    client.will_hear(_update({"THREE": 0.5}))
    events = client.say(1)
    assert _only(events, ".completed")["transcript"] == "THREE"
    assert _only(events, "speech_started")["audio_start_ms"] == pytest.approx(2200, abs=20)
    assert _only(events, ".added")["previous_item_id"] == failed["item_id"]


def test_a_failure_while_committing() -> None:
    client = Client(turn_detection=False)
    client.say(1)
    client.will_hear(ClientError("Recognition failed"))
    events = client.send("input_audio_buffer.commit")
    assert _kinds(events) == [
        "conversation.item.added",
        "input_audio_buffer.committed",
        "transcription.failed",
        "error",
    ]
    assert _refused(client.send("input_audio_buffer.commit"))["code"] == "input_audio_buffer_commit_empty"


def test_a_failure_before_anything_was_said() -> None:
    client = Client()
    client.will_hear(ServerBusy("All 8 streams are in use", hint="try later"))
    error = _refused(client.say(1))
    assert error["code"] == "server_busy"
    assert "All 8 streams are in use" in error["message"]


def test_the_older_form_from_the_beginning() -> None:
    client = Client(older=True)
    (created,) = client.hello
    assert created["type"] == "transcription_session.created"
    assert created["session"]["input_audio_format"] == "pcm16"
    (updated,) = client.send(
        "transcription_session.update",
        session={
            "input_audio_format": "g711_ulaw",
            "input_audio_transcription": {"model": "letters"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 700},
            "input_audio_noise_reduction": {"type": "near_field"},
        },
    )
    assert updated["type"] == "transcription_session.updated"
    assert updated["session"] == {
        **created["session"],
        "input_audio_format": "g711_ulaw",
        "input_audio_transcription": {"model": "letters", "language": None, "prompt": None},
        "turn_detection": {**created["session"]["turn_detection"], "silence_duration_ms": 700},
    }
    client.will_hear(_update({"ALPHA": 0.5}))
    events = client.send("input_audio_buffer.append", audio=base64.b64encode(bytes(8_000)).decode())
    assert _kinds(events) == [
        "input_audio_buffer.speech_started",
        "conversation.item.created",
        "transcription.delta",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "transcription.completed",
    ]


def test_the_older_form_by_its_first_event() -> None:
    client = Client()
    client.send("transcription_session.update", session={})
    client.will_hear(_update({"ONE": 0.5}))
    assert "conversation.item.created" in _kinds(client.say(1))


def test_a_script_without_spaces() -> None:
    client = Client(turn_detection=False)
    words = (Word("你", 0.5, 0.7, 0.5), Word("好", 0.9, 1.1, 0.5))
    client.will_hear(
        StreamUpdate((Segment(0, "你好", words, False),), False, False, 1.0),
        StreamUpdate((Segment(0, "你好", words, True),), True, False, 2.0),
        StreamUpdate((Segment(1, "你好", words, True),), True, False, 3.0),
    )
    events = client.say(1) + client.say(1) + client.say(1)
    assert [event["delta"] for event in events if "delta" in event] == ["你", "好", "你好"]


def test_a_beam_that_changes_its_mind_repeats_nothing() -> None:
    client = Client(turn_detection=False)
    client.will_hear(
        _update(growing={"FOR": 0.5, "TWO": 0.9}),
        _update(growing={"FOUR": 0.5, "TWO": 0.9, "SIX": 1.3}),
        _update(growing={"FOURTWO": 0.5}),
        _update({"FOUR": 0.5, "TWO": 0.9, "SIX": 1.3}, last=True),
    )
    events = client.say(1) + client.say(1) + client.say(1) + client.send("input_audio_buffer.commit")
    assert [event["delta"] for event in events if "delta" in event] == ["FOR", " TWO", " SIX"]
    assert _only(events, ".completed")["transcript"] == "FOUR TWO SIX"


def test_the_bytes_of_a_file_are_refused_until_the_buffer_is_cleared() -> None:
    client = Client()
    ogg = b"OggS\0\x02" + bytes(3000)
    for data in (ogg, bytes(4800)):
        (error,) = client.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())
        assert error["error"]["code"] == "invalid_audio"
        assert error["error"]["message"].startswith(
            "Expected samples (s16le, 24000 Hz, mono, without a header), got an Ogg"
        )
    client.send("input_audio_buffer.clear")
    assert client.send("input_audio_buffer.append", audio=base64.b64encode(bytes(4800)).decode()) == []
