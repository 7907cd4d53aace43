"""Whatever a client does in whatever order: what a realtime session says adds up."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.client.served_model import ServedModel
from moulin.errors import ClientError
from moulin.gateway.live_steps import Event, Find, Forget, Hear, Step
from moulin.gateway.realtime_config import RealtimeConfig
from moulin.gateway.realtime_session import RealtimeSession

from .simulated_triton import SimulatedTriton

COMMIT, CLEAR = {"type": "input_audio_buffer.commit"}, {"type": "input_audio_buffer.clear"}
MANUAL = {"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}}


def _detect(silence_ms: int) -> dict[str, Any]:
    detection = {"type": "server_vad", "silence_duration_ms": silence_ms}
    return {"type": "session.update", "session": {"audio": {"input": {"turn_detection": detection}}}}


def _audio(blocks: str) -> dict[str, Any]:
    """Tenths of a second, spoken ("#") or not (".")."""
    pcm = np.concatenate([np.full(2_400, 8_000 if block == "#" else 0, "<i2") for block in blocks])
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(pcm.tobytes()).decode()}


ACTIONS = st.one_of(
    st.text("#.", min_size=1, max_size=12).map(_audio),
    st.sampled_from([COMMIT, CLEAR, MANUAL, _detect(200), _detect(600), "rest", "fail", {"type": "nonsense"}, None]),
)


class Conversation:
    """A client's, on a simulated Triton."""

    def __init__(self) -> None:
        self.session = RealtimeSession(RealtimeConfig("digits"))
        self.triton = SimulatedTriton()
        self.events: list[dict[str, Any]] = []
        self.fails = False
        self.forgot = False
        self.take(self.session.opening())

    def do(self, action: Any) -> None:
        if action == "rest":
            self.take(self.session.rest())
        elif action == "fail":
            self.fails = True
        else:
            self.take(self.session.receive(json.dumps(action)))

    def take(self, steps: Iterable[Step]) -> None:
        for step in steps:
            match step:
                case Event():
                    self.events.append(step.fields)
                case Forget():
                    self.triton.forget()
                    self.forgot = True
                case Find():
                    step.model = ServedModel(step.name, True, 30.0)
                case Hear() if self.fails:
                    self.fails, self.forgot = False, True
                    self.triton.forget()
                    self.take(self.session.failed(ClientError("Recognition failed")))
                case Hear():
                    self.take(self.session.heard(step, self.triton.hear(step)))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"].endswith(kind)]


def _check_items(conversation: Conversation) -> None:
    """Every item is announced, says its text in deltas, and ends exactly once, one after the other."""
    current: str | None = None
    previous: str | None = None
    text, speaking = "", False
    for event in conversation.events:
        kind, item_id = event["type"].rpartition(".")[2], event.get("item_id")
        if kind == "speech_started":
            assert current is None
            speaking = True
        elif kind == "added":
            assert current is None
            assert event["previous_item_id"] == previous
            current, text = event["item"]["id"], ""
        elif kind == "delta":
            assert item_id == current
            assert event["delta"]
            text += event["delta"]
        elif kind == "speech_stopped":
            assert item_id == current
            assert speaking
        elif kind == "committed":
            assert (item_id, event["previous_item_id"]) == (current, previous)
        elif kind == "completed":
            assert item_id == current
            assert event["transcript"] == text
            assert text.split() == [word["word"] for word in event["words"]]
            assert event["usage"]["seconds"] >= 0
            current, previous, speaking = None, current, False
        elif kind == "failed":
            assert item_id == current
            current, previous, speaking = None, current, False
        elif kind == "deleted":
            assert item_id == current
            current, speaking = None, False
        elif kind == "done":
            assert event["item"]["id"] == previous
    assert current is None


def _check_times(conversation: Conversation) -> None:
    """Turns and words follow each other, within the audio there is."""
    turns = [event for event in conversation.events if "audio_start_ms" in event or "audio_end_ms" in event]
    marks = [int(event.get("audio_start_ms", event.get("audio_end_ms", 0))) for event in turns]
    assert marks == sorted(marks)
    starts = [word["start_sec"] for event in conversation.of("completed") for word in event["words"]]
    assert starts == sorted(starts)
    assert all(start <= conversation.session.received_sec for start in starts)


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=25))
def test_everything_that_is_said_is_told_once(actions: list[Any]) -> None:
    conversation = Conversation()
    for action in actions:
        conversation.do(action)
    conversation.fails = False
    conversation.take(conversation.session.rest())
    conversation.do(_audio("..."))
    conversation.do(COMMIT)
    _check_items(conversation)
    _check_times(conversation)
    assert len(conversation.events) == len({event["event_id"] for event in conversation.events})
    told = [word["word"] for event in conversation.of("completed") for word in event["words"]]
    if not conversation.forgot:  # nothing was cleared, nothing failed
        assert told == conversation.triton.heard
