"""Deepgram's live protocol, with a simulated Triton for each channel."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from moulin.errors import ServerUnavailable
from moulin.gateway.deepgram.session import DeepgramSession, HearChannel
from moulin.gateway.deepgram.wish import Wish
from moulin.gateway.live_steps import Event, Finish, Forget, Step
from tests.gateway.simulated_triton import SimulatedTriton

LOUD = np.full(3200, 8000, "<i2").tobytes()
QUIET = bytes(2 * 8000)
FINALIZE, CLOSE, ALIVE = '{"type": "Finalize"}', '{"type": "CloseStream"}', '{"type": "KeepAlive"}'


class Client:
    """Drives a session; `failing` is what Triton raises."""

    def __init__(self, *, failing: Exception | None = None, **query: str) -> None:
        given = {"encoding": "linear16", "sample_rate": "16000", "interim_results": "true"} | query
        self.wish = Wish.of(given.items(), live=True)
        options = self.wish.stream_options(hotwords=False)
        self.session = DeepgramSession(self.wish, "live", options, "req_1", lambda: "digest")
        self._tritons = [SimulatedTriton() for _ in range(self.wish.channels)]
        self._failing = failing
        self.events: list[dict[str, Any]] = []
        self.finished: Finish | None = None
        self.forgotten = False

    def send(self, *received: str | bytes) -> None:
        for message in received:
            self.take(self.session.receive(message))

    def take(self, steps: Any) -> None:
        for step in steps:
            self._do(step)

    def _do(self, step: Step) -> None:
        match step:
            case Event(fields):
                self.events.append(json.loads(json.dumps(fields)))
            case HearChannel() if self._failing:
                self.take(self.session.failed(self._failing))
            case HearChannel():
                self.take(self.session.heard(step, self._tritons[step.channel].hear(step)))
            case Forget():
                self.forgotten = True
            case Finish():
                self.finished = step

    def results(self, **having: Any) -> list[dict[str, Any]]:
        results = [event for event in self.events if event["type"] == "Results"]
        return [result for result in results if all(result[name] == value for name, value in having.items())]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]


def texts(results: list[dict[str, Any]]) -> list[str]:
    return [result["channel"]["alternatives"][0]["transcript"] for result in results]


def test_interim_and_final_results() -> None:
    client = Client()
    client.send(LOUD, QUIET, LOUD, CLOSE)
    assert texts(client.results(is_final=False)) == ["W0", "W7"]
    assert texts(client.results(is_final=True, speech_final=True)) == ["W0.", "W7."]
    assert not client.results(from_finalize=True)
    (metadata,) = client.of_type("Metadata")
    assert client.events[-1] is metadata
    assert (metadata["request_id"], metadata["sha256"], metadata["channels"]) == ("req_1", "digest", 1)
    assert metadata["duration"] == 0.9
    assert client.finished == Finish()


def test_a_result_says_which_audio_it_is_about() -> None:
    client = Client()
    client.send(LOUD, QUIET, LOUD, CLOSE)
    finals = client.results(is_final=True)
    assert [(result["start"], result["duration"]) for result in finals] == [(0, 0.7), (0.7, 0.2)]
    (word,) = finals[1]["channel"]["alternatives"][0]["words"]
    assert (word["word"], word["punctuated_word"], word["start"], word["end"]) == ("W7.", "W7.", 0.7, 0.9)
    assert finals[1]["channel"]["alternatives"][0]["confidence"] == 0.5
    assert finals[1]["channel_index"] == [0, 1]
    assert finals[1]["metadata"]["model_info"]["name"] == "live"


def test_final_results_alone() -> None:
    client = Client(interim_results="false")
    client.send(LOUD, QUIET, LOUD, CLOSE)
    assert texts(client.results()) == ["W0.", "W7."]


def test_without_endpointing_no_pause_is_reported() -> None:
    client = Client(endpointing="false")
    client.send(LOUD, QUIET)
    assert texts(client.results(is_final=True)) == ["W0."]
    assert not client.results(speech_final=True)


def test_finalize_closes_the_utterance_and_goes_on() -> None:
    client = Client()
    client.send(LOUD, FINALIZE, LOUD, CLOSE)
    assert texts(client.results(from_finalize=True)) == ["W0."]
    assert client.results(from_finalize=True)[0]["speech_final"]
    (last,) = client.results(is_final=True, from_finalize=False)
    assert last["channel"]["alternatives"][0]["words"][0]["start"] == 0.2


@pytest.mark.parametrize("before", [(), (QUIET,), (LOUD, FINALIZE)])
def test_finalize_is_answered_when_there_is_nothing_to_say(before: tuple[str | bytes, ...]) -> None:
    client = Client()
    client.send(*before)
    client.events.clear()
    client.send(FINALIZE)
    (answer,) = client.results()
    assert texts([answer]) == [""]
    assert answer["from_finalize"]
    assert answer["is_final"]
    assert answer["channel"]["alternatives"][0]["words"] == []


def test_speech_started() -> None:
    client = Client(vad_events="true")
    client.send(QUIET, LOUD, LOUD, QUIET, LOUD)
    assert client.of_type("SpeechStarted") == [
        {"type": "SpeechStarted", "channel": [0, 1], "timestamp": 0.5},
        {"type": "SpeechStarted", "channel": [0, 1], "timestamp": 1.4},
    ]
    kinds = [event["type"] for event in client.events]
    assert kinds.index("SpeechStarted") < kinds.index("Results")


def test_utterance_end_comes_once_behind_the_final_result() -> None:
    client = Client(utterance_end_ms="900", endpointing="400")
    client.send(LOUD, QUIET)
    assert texts(client.results(is_final=True)) == ["W0."]
    assert not client.of_type("UtteranceEnd")
    client.send(QUIET)
    assert client.of_type("UtteranceEnd") == [{"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 0.2}]
    client.send(QUIET, QUIET, QUIET)
    assert len(client.of_type("UtteranceEnd")) == 1
    assert client.events[-1]["type"] == "UtteranceEnd"


def test_channels_by_themselves() -> None:
    client = Client(channels="2", multichannel="true")
    left = np.frombuffer(LOUD + QUIET, "<i2")
    right = np.frombuffer(QUIET + LOUD, "<i2")
    client.send(np.stack([left, right], 1).astype("<i2").tobytes(), '{"type": "Finalize", "channel": 1}')
    assert [(result["channel_index"], texts([result])) for result in client.results(from_finalize=True)] == [
        ([1, 2], ["W5."])
    ]
    client.send(FINALIZE)
    assert [result["channel_index"] for result in client.results(from_finalize=True)] == [[1, 2], [0, 2], [1, 2]]
    client.send(CLOSE)
    assert client.of_type("Metadata")[0]["channels"] == 2
    assert texts(client.results(channel_index=[0, 2], is_final=True))[0] == "W0."


def test_keep_alive_says_nothing_and_silence_without_audio_rests() -> None:
    client = Client()
    client.send(ALIVE)
    assert client.events == []
    assert client.session.is_resting
    client.send(LOUD, ALIVE)
    assert not client.results(is_final=True)
    client.take(client.session.rest())
    assert texts(client.results(is_final=True)) == ["W0."]
    client.take(client.session.rest())
    assert len(client.results(is_final=True)) == 1


def test_an_empty_message_closes_as_it_did_for_older_clients() -> None:
    client = Client()
    client.send(LOUD, b"")
    assert [event["type"] for event in client.events[-2:]] == ["Results", "Metadata"]
    assert client.finished == Finish()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("{", "not JSON"),
        ("[]", "Expected a JSON object, got list"),
        ('{"type": "Close"}', "KeepAlive, Finalize or CloseStream, got 'Close'"),
        ('{"type": {}}', "Expected a message of type"),
        ('{"type": "Finalize", "channel": 1}', "Expected a channel of 0 to 0, got 1"),
        ('{"type": "Finalize", "channel": true}', "Expected a channel"),
        ('{"type": "Finalize", "channel": 0.0}', "Expected a channel"),
        ('{"type": "Finalize", "channel": []}', "Expected a channel"),
        ("x" * 5000, "expected at most 4,096 bytes"),
    ],
)
def test_a_message_that_means_nothing_is_answered_and_the_stream_goes_on(message: str, expected: str) -> None:
    client = Client()
    client.send(message)
    (error,) = client.events
    assert (error["type"], error["variant"]) == ("Error", "SchemaError")
    assert expected in error["description"]
    assert client.finished is None


def test_a_stream_cannot_be_configured_anew() -> None:
    client = Client()
    client.send('{"type": "Configure", "keyterms": ["moulin"]}')
    (failure,) = client.events
    assert (failure["type"], failure["request_id"]) == ("ConfigureFailure", "req_1")
    assert failure["code"] == "CONFIGURE_KEYTERMS_NOT_SUPPORTED"
    assert client.finished is None


def test_a_file_where_samples_were_said() -> None:
    client = Client()
    client.send(b"fLaC\x00\x00\x00\x22" + bytes(100))
    assert "got a FLAC file (hint: leave out encoding and sample_rate" in client.events[0]["description"]
    assert client.finished is not None
    assert client.finished.error is not None


def test_a_lost_stream_ends_the_connection() -> None:
    client = Client(failing=ServerUnavailable("No Triton"))
    client.send(LOUD)
    assert client.events[0]["description"] == "No Triton"
    assert client.forgotten
    assert client.finished is not None
    assert client.session.is_resting
