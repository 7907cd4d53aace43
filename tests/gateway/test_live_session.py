"""The plain protocol without a socket: what it says to audio, to control messages, and to everything else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from moulin.errors import AudioError, ClientError, ServerBusy
from moulin.gateway.live_session import LiveSession
from moulin.gateway.live_steps import Event, Finish, Hear, Step
from moulin.live_transcript import Segment, StreamUpdate
from moulin.transcript import Word

SECOND = np.zeros(16_000, "<i2").tobytes()
NOTHING = StreamUpdate((), False, False, 1.0)


def _segment(number: int, text: str, start_sec: float, *, final: bool) -> Segment:
    return Segment(number, text, (Word(text, start_sec, round(start_sec + 0.2, 3), 0.9),), final)


def _partial(text: str, start_sec: float = 0.4, number: int = 0) -> StreamUpdate:
    return StreamUpdate((_segment(number, text, start_sec, final=False),), False, False, 1.0)


def _final(text: str, start_sec: float = 0.4, number: int = 0, *, last: bool = False) -> StreamUpdate:
    return StreamUpdate((_segment(number, text, start_sec, final=True),), not last, last, 1.0)


class Client:
    """Sends messages, and answers what the session asks of Triton from a script."""

    def __init__(self, **arguments: Any) -> None:
        self.session = LiveSession("digits", **arguments)
        self.heard: list[Hear] = []
        self.finished = False
        self._script: list[StreamUpdate | Exception] = []
        self.hello = self._taken(self.session.opening())

    def will_hear(self, *script: StreamUpdate | Exception) -> None:
        self._script = list(script)

    def say(self, audio: bytes = SECOND) -> list[dict[str, Any]]:
        return self._taken(self.session.receive(audio))

    def tell(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        return self._taken(self.session.receive(json.dumps({"type": kind, **fields})))

    def tell_raw(self, text: str) -> list[dict[str, Any]]:
        return self._taken(self.session.receive(text))

    def rest(self) -> list[dict[str, Any]]:
        return self._taken(self.session.rest())

    def _taken(self, steps: Iterable[Step]) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        for step in steps:
            assert not self.finished
            if isinstance(step, Event):
                messages.append(json.loads(json.dumps(step.fields)))
            elif isinstance(step, Hear):
                self.heard.append(step)
                reply = self._script.pop(0) if self._script else NOTHING
                if isinstance(reply, Exception):
                    messages += self._taken(self.session.failed(reply))
                else:
                    messages += self._taken(self.session.heard(step, reply))
            else:
                assert isinstance(step, Finish)
                self.finished = True
        return messages


def _types(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


def _refused(messages: list[dict[str, Any]]) -> dict[str, Any]:
    (message,) = messages
    assert message["type"] == "error"
    return message


def test_from_beginning_to_end() -> None:
    client = Client()
    assert client.hello == [{"type": "ready", "model": "digits", "encoding": "s16le", "sample_rate": 16000}]
    client.will_hear(_partial("ON"), _partial("ON"), _partial("ONE"), _final("ONE"), _final("TWO", 3.2, 1, last=True))
    word = {"word": "ON", "start_sec": 0.4, "end_sec": 0.6, "confidence": 0.9}
    segment = {"number": 0, "text": "ON", "start_sec": 0.4, "end_sec": 0.6, "is_final": False, "words": [word]}
    assert client.say() == [{"type": "partial", "segment": segment, "duration_sec": 1.0}]
    assert client.say() == []  # nothing is new
    assert _types(client.say()) == ["partial"]
    assert _types(client.say()) == ["final", "endpoint"]
    final, done = client.tell("end")
    assert final["segment"]["number"] == 1
    assert (done["type"], done["text"], done["duration_sec"]) == ("done", "ONE TWO", 4.0)
    assert [word["word"] for word in done["words"]] == ["ONE", "TWO"]
    assert client.finished


def test_an_end_without_audio() -> None:
    client = Client()
    assert client.tell("end") == [{"type": "done", "text": "", "words": [], "duration_sec": 0.0}]
    assert client.heard == []


def test_after_a_rest_numbers_and_times_go_on() -> None:
    client = Client()
    client.will_hear(_partial("ONE"), _final("ONE", last=True))
    client.say()
    assert _types(client.rest()) == ["final"]
    assert client.session.is_resting
    assert client.rest() == []
    client.will_hear(_partial("TWO"), _final("TWO", last=True))
    (partial,) = client.say()
    assert partial["segment"]["number"] == 1
    assert partial["segment"]["words"][0]["start_sec"] == 1.4
    assert partial["duration_sec"] == 2.0
    *_, done = client.tell("end")
    assert done["text"] == "ONE TWO"
    assert [word["start_sec"] for word in done["words"]] == [0.4, 1.4]


def test_the_same_text_is_news_in_another_segment() -> None:
    client = Client()
    client.will_hear(_partial("ONE"), _final("ONE"), _partial("ONE", 3.0, 1))
    assert _types(client.say() + client.say() + client.say()) == ["partial", "final", "endpoint", "partial"]


def test_options_are_those_of_the_audio_behind_them() -> None:
    client = Client()
    assert client.tell("options", options={"endpoint": False, "method": "greedy"}) == []
    client.say()
    client.will_hear(_final("ONE", last=True))
    (final,) = client.tell("options", options={"hotwords": ["zero"]})
    assert (final["type"], final["segment"]["number"]) == ("final", 0)
    client.will_hear(_partial("TWO"))
    (partial,) = client.say()
    assert partial["segment"]["number"] == 1
    first = {"endpoint": False, "method": "greedy"}
    assert [(hear.options, hear.end) for hear in client.heard] == [
        (first, None),
        (first, "rest"),
        ({"hotwords": ["zero"]}, None),
    ]


def test_wrong_options_in_the_middle_change_nothing() -> None:
    client = Client()
    client.say()
    assert _refused(client.tell("options", options={"beem": 4}))["code"] == "invalid_options"
    client.say()
    assert [(hear.options, hear.end) for hear in client.heard] == [({}, None)] * 2


@pytest.mark.parametrize(
    "options", [None, [], "greedy", {"beem": 4}, {"beam": 0}, {"endpoint": 1}, {"rule1_min_trailing_silence_sec": "x"}]
)
def test_bad_options(options: Any) -> None:
    client = Client()
    assert _refused(client.tell("options", options=options))["code"] == "invalid_options"
    client.say()
    assert client.heard[0].options == {}


@pytest.mark.parametrize("number", [7, "a", None, {"at": [1.5]}])
def test_pings_are_answered(number: Any) -> None:
    assert Client().tell("ping", id=number) == [{"type": "pong", "id": number}]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "invalid_json"),
        ("hello", "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ("[1]", "invalid_message"),
        ("{}", "invalid_message"),
        ('{"type": ["end"]}', "invalid_message"),
        ('{"type": "stop"}', "invalid_message"),
    ],
)
def test_mistakes_are_explained_and_survived(text: str, code: str) -> None:
    client = Client()
    refused = _refused(client.tell_raw(text))
    assert refused["code"] == code
    client.will_hear(_partial("ONE"))
    assert _types(client.say()) == ["partial"]


def test_samples_that_are_none_are_left_out() -> None:
    client = Client(encoding="f32le")
    refused = _refused(client.say(np.full(1600, np.nan, "<f4").tobytes()))
    assert refused["code"] == "invalid_audio"
    assert "nan at sample 0" in refused["message"]
    refused = _refused(client.say(np.full(1600, 3000, "<f4").tobytes()))
    assert "peak of 3000" in refused["message"]
    client.will_hear(_partial("ONE"))
    assert _types(client.say(np.zeros(1600, "<f4").tobytes())) == ["partial"]


def test_any_rate() -> None:
    client = Client(sample_rate=48_000)
    client.say(SECOND * 3)
    client.tell("end")
    assert sum(len(step.samples) for step in client.heard) == 16_000


def test_no_rate_of_speech() -> None:
    with pytest.raises(AudioError, match="got 4000"):
        Client(sample_rate=4_000)


def test_a_failure_loses_what_was_not_said_yet_and_no_more() -> None:
    client = Client()
    client.will_hear(_final("ONE"), _partial("TW", 3.0, 1), ClientError("Recognition failed"), _final("SIX", last=True))
    client.say()
    client.say()
    assert _refused(client.say())["code"] == "recognition_failed"
    assert client.session.is_resting
    client.say()
    *_, done = client.tell("end")
    assert done["text"] == "ONE SIX"
    assert [word["start_sec"] for word in done["words"]] == [0.4, 3.4]


def test_a_full_server_says_when_to_come_back() -> None:
    client = Client()
    client.will_hear(ServerBusy("All 8 streams are in use", hint="try later"))
    refused = _refused(client.say())
    assert (refused["code"], refused["hint"], refused["retry_after_sec"]) == ("server_busy", "try later", 1.0)


def test_a_failure_at_the_end_still_ends() -> None:
    client = Client()
    client.will_hear(_final("ONE"), ClientError("Recognition failed"))
    client.say()
    assert _types(client.tell("end")) == ["error", "done"]
    assert client.finished


def test_the_bytes_of_a_file_are_refused_and_end_the_session() -> None:
    """Not heard as noise: nothing is sent to Triton, and the client is told what it sent."""
    session = LiveSession("digits")
    error, finish = session.receive(b"RIFF\xff\xff\xff\xffWAVEfmt " + bytes(4000))
    assert isinstance(error, Event)
    assert (error.fields["type"], error.fields["code"]) == ("error", "invalid_audio")
    assert error.fields["message"].endswith("got a WAV file")
    assert "behind its header" in error.fields["hint"]
    assert isinstance(finish, Finish)
    assert finish.error is not None
    assert finish.error.status == 400


def test_samples_of_another_format_are_doubted_once() -> None:
    """Floats sent as s16le: noise in which a recogniser would hear words."""
    client = Client()
    floats = np.sin(np.arange(16_000 * 6) * 0.05).astype("<f4").tobytes()
    messages = [
        message for first in range(0, len(floats), 6400) for message in client.say(floats[first : first + 6400])
    ]
    (warning,) = [message for message in messages if message["type"] == "warning"]
    assert warning["code"] == "sample_format"
    assert "f32le, not s16le" in warning["message"]
    assert client.heard, "it goes on"


def test_a_short_stream_of_another_format_is_doubted_at_its_end() -> None:
    client = Client()
    floats = np.sin(np.arange(16_000) * 0.05).astype("<f4").tobytes()
    messages = [*client.say(floats), *client.tell("end")]
    kinds = [message["type"] for message in messages]
    assert kinds.count("warning") == 1
    assert kinds.index("warning") < kinds.index("done")


def test_silence_first_and_then_another_format() -> None:
    client = Client()
    client.will_hear()
    quiet = client.say(bytes(32_000 * 3))
    floats = np.sin(np.arange(16_000 * 3) * 0.05).astype("<f4").tobytes()
    assert [message["type"] for message in quiet + client.say(floats)].count("warning") == 1


def test_samples_as_said_are_not_doubted() -> None:
    client = Client()
    tone = (np.sin(np.arange(16_000 * 8) * 0.05) * 9000).astype("<i2").tobytes()
    assert all(message["type"] != "warning" for message in client.say(tone))
