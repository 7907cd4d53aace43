"""`Client.stream` and `AsyncClient.stream`, through one set of tests, on a stand-in for tritonclient."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from moulin.client import AsyncClient, Client
from moulin.errors import AudioError, ClientError, ServerBusy, ServerUnavailable
from moulin.transcript import Transcript, Word

from .fake_triton import AsyncFakeTriton, FakeTriton, heard, samples

PIECE = np.full(160, 0.25, np.float32)
Script = Callable[[Any], Awaitable[None]]


class _Awaitable:
    """A blocking stream, to be used like the asyncio one."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.live = stream.live

    async def send(self, *arguments: Any, **options: Any) -> Any:
        return self._stream.send(*arguments, **options)

    async def finish(self, *arguments: Any) -> Any:
        return self._stream.finish(*arguments)


@dataclass
class Streaming:
    """Runs a script on a stream of one of the clients."""

    kind: str
    triton: FakeTriton

    def run(self, script: Script, *, model: str = "transducer", **options: Any) -> None:
        asyncio.run(self._run(script, model, options))

    async def _run(self, script: Script, model: str, options: dict[str, Any]) -> None:
        if self.kind == "AsyncClient":
            async with AsyncClient("h:1", model=model) as client, client.stream(**options) as stream:
                await script(stream)
        else:
            with Client("h:1", model=model) as blocking, blocking.stream(**options) as live:
                await script(_Awaitable(live))


@pytest.fixture(params=["Client", "AsyncClient"])
def streaming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Streaming:
    triton = AsyncFakeTriton() if request.param == "AsyncClient" else FakeTriton()
    place = tritonclient.grpc.aio if request.param == "AsyncClient" else tritonclient.grpc
    monkeypatch.setattr(place, "InferenceServerClient", lambda _url, **_: triton)
    return Streaming(request.param, triton)


def test_to_the_end(streaming: Streaming) -> None:
    async def script(stream: Any) -> None:
        assert await stream.send(PIECE) == heard(160)
        assert await stream.send(PIECE[:0]) == heard(160)
        assert stream.live.text == "160"
        assert await stream.finish(PIECE[:1]) == Transcript("161", (Word("161", 0.0, 0.04, 1.0),), 161 / 16000)
        assert streaming.triton.open == {}
        with pytest.raises(ClientError, match="has ended"):
            await stream.send(PIECE)

    streaming.run(script, method="greedy")
    assert len(streaming.triton.asked) == 3


def test_one_piece_is_start_and_end(streaming: Streaming) -> None:
    async def script(stream: Any) -> None:
        assert (await stream.send(PIECE, end=True)).is_final

    streaming.run(script)
    (request,) = streaming.triton.asked
    assert request["sequence_start"]
    assert request["sequence_end"]


def test_no_audio_at_all(streaming: Streaming) -> None:
    async def script(stream: Any) -> None:
        assert (await stream.finish()).duration_sec == 0

    streaming.run(script)


def test_leaving_before_the_end_frees_the_slot(streaming: Streaming) -> None:
    async def stops(stream: Any) -> None:
        await stream.send(PIECE)
        assert len(streaming.triton.open) == 1

    async def fails(stream: Any) -> None:
        await stops(stream)
        raise ZeroDivisionError

    async def is_cancelled(stream: Any) -> None:
        await stops(stream)
        raise asyncio.CancelledError

    streaming.run(stops)
    with pytest.raises(ZeroDivisionError):
        streaming.run(fails)
    with pytest.raises(asyncio.CancelledError):
        streaming.run(is_cancelled)
    assert streaming.triton.open == {}


def test_nothing_sent_nothing_ended(streaming: Streaming) -> None:
    async def script(stream: Any) -> None:
        assert stream.live.text == ""

    streaming.run(script)
    assert streaming.triton.asked == []


def test_an_error_is_the_end(streaming: Streaming) -> None:
    async def script(stream: Any) -> None:
        await stream.send(PIECE)
        streaming.triton.fail = InferenceServerException("Recognition failed", "StatusCode.INTERNAL")
        with pytest.raises(ClientError, match="Recognition failed"):
            await stream.send(PIECE)
        with pytest.raises(ClientError, match="was not answered"):
            await stream.send(PIECE)

    streaming.run(script)
    assert streaming.triton.open == {}
    assert [samples(request["inputs"]) for request in streaming.triton.asked[2:]] == [[]]


def test_what_goes_wrong_while_leaving_is_kept_quiet(streaming: Streaming) -> None:
    async def script(stream: Any) -> None:
        await stream.send(PIECE)
        streaming.triton.fail = InferenceServerException("Socket closed", "StatusCode.UNAVAILABLE")

    streaming.run(script)
    assert streaming.triton.asked[-1]["sequence_end"]


def test_bad_samples_can_be_left_out(streaming: Streaming) -> None:
    async def script(stream: Any) -> None:
        await stream.send(PIECE)
        with pytest.raises(AudioError, match="nan at sample 0"):
            await stream.send([np.nan])
        assert (await stream.finish(PIECE)).text == "320"

    streaming.run(script)


def test_a_full_server(streaming: Streaming) -> None:
    streaming.triton.slots = 0

    async def script(stream: Any) -> None:
        await stream.send(PIECE)

    with pytest.raises(ClientError, match="All 0 streams are in use") as caught:
        streaming.run(script)
    assert caught.type is ServerBusy
    assert caught.value.hint == "raise --max-streams"


def test_nobody_answers(streaming: Streaming) -> None:
    streaming.triton.fail = InferenceServerException("failed to connect", "StatusCode.UNAVAILABLE")

    async def script(_stream: Any) -> None:
        pytest.fail("there is no stream")

    with pytest.raises(ServerUnavailable, match="No Triton server answers at h:1"):
        streaming.run(script)


@pytest.mark.parametrize(
    ("served", "asked_for", "used"),
    [
        ({"transducer": "streaming"}, "transducer", "transducer"),
        ({"transducer": "offline", "transducer_streaming": "streaming"}, "transducer", "transducer_streaming"),
        (
            {"transducer": "offline", "transducer_streaming": "streaming"},
            "transducer_streaming",
            "transducer_streaming",
        ),
        ({"asr": "offline", "asr_streaming": "streaming", "transducer_streaming": "streaming"}, "asr", "asr_streaming"),
    ],
)
def test_which_model(streaming: Streaming, served: dict[str, str], asked_for: str, used: str) -> None:
    streaming.triton.models = served

    async def script(stream: Any) -> None:
        await stream.send(PIECE)

    streaming.run(script, model=asked_for)
    assert {request["model"] for request in streaming.triton.asked} == {used}


def test_an_offline_model(streaming: Streaming) -> None:
    streaming.triton.models = {"transducer": "offline"}

    async def script(stream: Any) -> None:
        await stream.send(PIECE)

    with pytest.raises(ClientError, match="model is offline") as caught:
        streaming.run(script)
    assert "moulin transcribe" in str(caught.value.hint)
