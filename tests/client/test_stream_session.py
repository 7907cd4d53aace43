"""Requests of a stream to Triton, for any pieces of its audio, and its end."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.client.stream_session import MAX_SEQUENCE_ID, StreamSession
from moulin.errors import AudioError, ClientError, OptionsError
from moulin.live_transcript import Segment, StreamUpdate
from moulin.transcript import Transcript, Word

from .fake_triton import Reply, heard, samples, tensors

AUDIO = np.linspace(-1, 1, 50, dtype=np.float32)


def _reply(update: StreamUpdate) -> Reply:
    return Reply(RESULT=update.to_dict())


def _ended(session: StreamSession) -> StreamSession:
    session.request(AUDIO, end=True)
    session.update(_reply(heard(50, is_final=True)))
    return session


@given(
    cuts=st.lists(st.integers(0, len(AUDIO)), max_size=8).map(sorted),
    end_apart=st.booleans(),
    options=st.sampled_from([None, {}, {"method": "greedy", "endpoint": False}]),
)
def test_any_pieces_are_one_sequence(cuts: list[int], end_apart: bool, options: dict[str, Any] | None) -> None:
    session = StreamSession(options)
    pieces = np.split(AUDIO, cuts)
    requests = []
    for number, piece in enumerate(pieces):
        requests.append(session.request(piece, end=not end_apart and number == len(pieces) - 1))
        session.update(_reply(heard(0)))
    if end_apart:
        requests.append(session.request(end=True))
        session.update(_reply(heard(0, is_final=True)))

    assert [request["sequence_start"] for request in requests] == [True] + [False] * (len(requests) - 1)
    assert [request["sequence_end"] for request in requests] == [False] * (len(requests) - 1) + [True]
    assert {request["sequence_id"] for request in requests} == {session.sequence_id}
    assert [sample for request in requests for sample in samples(request["inputs"])] == AUDIO.tolist()
    sent = [tensors(request["inputs"]) for request in requests]
    assert all(tensor["WAV"].shape == (1, max(1, tensor["WAV_LENS"].item())) for tensor in sent)
    assert all(tensor["WAV_LENS"].shape == (1, 1) for tensor in sent)
    assert [list(map(json.loads, tensor["OPTIONS"].ravel())) for tensor in sent if "OPTIONS" in tensor] == (
        [[options]] if options else []
    )
    assert not options or "OPTIONS" in sent[0]
    assert all([output.name() for output in request["outputs"]] == ["RESULT"] for request in requests)
    assert session.farewell() is None


def test_the_transcript_grows() -> None:
    session = StreamSession()
    one, two = Word("ONE", 0.1, 0.2, 0.9), Word("TWO", 1.1, 1.2, 0.8)
    updates = [
        StreamUpdate((Segment(0, "ONE", (one,), False),), False, False, 0.5),
        StreamUpdate((Segment(0, "ONE", (one,), True), Segment(1, "TWO", (two,), False)), True, False, 1.5),
        StreamUpdate((Segment(1, "TWO", (two,), True),), False, True, 2.0),
    ]
    for number, (update, text) in enumerate(zip(updates, ["ONE", "ONE TWO", "ONE TWO"], strict=True)):
        session.request(AUDIO, end=number == 2)
        assert session.update(_reply(update)) == update
        assert session.live.text == text
    assert session.live.transcript() == Transcript("ONE TWO", (one, two), 2.0)


def test_ids() -> None:
    chosen = {StreamSession().sequence_id for _ in range(100)}
    assert len(chosen) == 100
    assert all(1 <= number <= MAX_SEQUENCE_ID for number in chosen)
    for number in (1, MAX_SEQUENCE_ID):
        assert StreamSession(sequence_id=number).request(AUDIO)["sequence_id"] == number
    for number in (0, -1, MAX_SEQUENCE_ID + 1):
        with pytest.raises(OptionsError, match=f"got {number}"):
            StreamSession(sequence_id=number)


def test_pcm_is_scaled() -> None:
    assert samples(StreamSession().request(np.array([-32768, 16384], np.int16))["inputs"]) == [-1.0, 0.5]


@pytest.mark.parametrize("bad", [[np.nan], np.zeros((1, 5), np.float32), np.array([1, 2]), [2e4], "speech.wav"])
def test_samples_that_are_none_change_nothing(bad: Any) -> None:
    session = StreamSession()
    with pytest.raises(AudioError, match="samples"):
        session.request(bad)
    assert session.farewell() is None
    assert session.request(AUDIO)["sequence_start"]


def test_after_the_end() -> None:
    session = _ended(StreamSession())
    with pytest.raises(ClientError, match="has ended"):
        session.request(AUDIO)


def test_only_by_turns() -> None:
    session = StreamSession()
    session.request(AUDIO)
    with pytest.raises(ClientError, match="was not answered"):
        session.request(AUDIO)


@pytest.mark.parametrize("answered", [0, 1, 3])
@pytest.mark.parametrize("end", [False, True])
def test_a_failed_request_is_the_last_but_for_the_farewell(answered: int, end: bool) -> None:
    session = StreamSession({"beam": 2})
    for _ in range(answered):
        session.request(AUDIO)
        session.update(_reply(heard(1)))
    session.request(AUDIO, end=end)  # and no reply comes

    farewell = session.farewell()
    assert farewell is not None
    assert (farewell["sequence_start"], farewell["sequence_end"]) == (False, True)
    assert farewell["sequence_id"] == session.sequence_id
    assert tensors(farewell["inputs"]).keys() == {"WAV", "WAV_LENS"}
    assert samples(farewell["inputs"]) == []
    assert farewell["client_timeout"] > 0
    assert session.farewell() is None
    with pytest.raises(ClientError, match="has ended"):
        session.request(AUDIO)


def test_a_stream_that_stops_early_says_farewell() -> None:
    session = StreamSession()
    assert session.farewell() is None  # nothing was sent, nobody waits
    session = StreamSession()
    session.request(AUDIO)
    session.update(_reply(heard(50)))
    assert session.farewell() is not None


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(TRANSCRIPTS="HI"), "no RESULT"),
        (Reply(RESULT=Transcript("HI", (), 1.0).to_dict()), "model is offline"),
    ],
)
def test_models_that_do_not_stream(reply: Reply, message: str) -> None:
    session = StreamSession()
    session.request(AUDIO)
    with pytest.raises(ClientError, match=message):
        session.update(reply)
    with pytest.raises(ClientError, match="was not answered"):
        session.request(AUDIO)


def test_16_bits_where_they_are_wanted() -> None:
    (sent,) = (tensors(StreamSession(int16=True).request(np.array([-1, 0.5, 2], np.float32))["inputs"]),)
    assert sorted(sent) == ["WAV_INT16", "WAV_LENS"]
    assert sent["WAV_INT16"].tolist() == [[-32768, 16384, 32767]]
