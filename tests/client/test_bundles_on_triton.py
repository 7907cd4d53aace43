"""`StreamBundle` and `AsyncStreamBundle` on the real tritonserver: texts, refusals, lost lanes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio as grpc_aio
from tritonclient.utils import InferenceServerException

from moulin.arrays import Floats
from moulin.audio.waveform import in_16_bits
from moulin.client import AsyncClient, AsyncStreamBundle, StreamBundle
from moulin.errors import AudioError, ClientError, RequestRefused, ServerBusy, ServerUnavailable
from moulin.launch.server import TritonServer
from moulin.transcript import Transcript
from tests.conftest import MAX_STREAMS, TINY_MODEL, TINY_STREAMING_MODEL, Recording

pytestmark = pytest.mark.triton

_PATIENCE_SEC = 300.0


def run(server: TritonServer, script: Callable[[AsyncStreamBundle], Awaitable[None]], **options: Any) -> None:
    async def bounded() -> None:
        async with (
            asyncio.timeout(_PATIENCE_SEC),
            AsyncClient(server.grpc_url) as client,
            client.bundle(**options) as bundle,
        ):
            await script(bundle)

    asyncio.run(bounded())


async def heard(bundle: AsyncStreamBundle, waveform: Floats, seed: int, **options: Any) -> Transcript:
    """The transcript of a recording in pieces of any length."""
    rng, at = random.Random(seed), 0
    stream = await bundle.open(**options)
    while at < len(waveform):
        count = rng.choice((0, 1, 700, 1600, 5120, 16_000))
        await stream.send(waveform[at : at + count])
        at += count
    return await stream.finish()


def test_many_streams_are_heard_as_each_alone(
    server: TritonServer, recordings: list[Recording], heard_live: list[Transcript]
) -> None:
    async def script(bundle: AsyncStreamBundle) -> None:
        transcripts = await asyncio.gather(
            *(heard(bundle, recording.waveform, seed) for seed in range(2) for recording in recordings)
        )
        for found, alone in zip(transcripts, heard_live * 2, strict=True):
            assert found.text == alone.text
            assert [(word.word, word.start_sec, word.end_sec) for word in found.words] == [
                (word.word, word.start_sec, word.end_sec) for word in alone.words
            ]
            assert found.duration_sec == alone.duration_sec
        assert bundle.num_requests < bundle.num_rows
        (lane,) = bundle.lanes
        assert not lane.streams

    run(server, script)


def test_beside_unary_requests_and_other_bundles(
    server: TritonServer, recordings: list[Recording], heard_live: list[Transcript]
) -> None:
    async def script(bundle: AsyncStreamBundle) -> None:
        async def unary(client: AsyncClient, waveform: Floats) -> str:
            async with client.stream() as stream:
                for begin in range(0, len(waveform), 5120):
                    await stream.send(waveform[begin : begin + 5120])
                return (await stream.finish()).text

        async with AsyncClient(server.grpc_url) as client, client.bundle() as other:
            some = recordings[:4]
            texts = await asyncio.gather(
                *(unary(client, recording.waveform) for recording in some),
                *(_text(heard(bundle, recording.waveform, 1)) for recording in some),
                *(_text(heard(other, recording.waveform, 2)) for recording in some),
            )
        assert texts == [alone.text for alone in heard_live[:4]] * 3

    run(server, script)


async def _text(transcript: Awaitable[Transcript]) -> str:
    return (await transcript).text


def test_from_threads(server: TritonServer, recordings: list[Recording], heard_live: list[Transcript]) -> None:
    with StreamBundle(server.grpc_url) as bundle, ThreadPoolExecutor(4) as pool:

        def hear(recording: Recording) -> str:
            stream = bundle.open()
            for begin in range(0, len(recording.waveform), 8000):
                stream.push(recording.waveform[begin : begin + 8000])
            assert stream.settled().duration_sec == pytest.approx(len(recording.waveform) / 16000, abs=0.001)
            return stream.finish().text

        assert list(pool.map(hear, recordings[:4])) == [alone.text for alone in heard_live[:4]]
        stream = bundle.open()
    bundle.close()
    stream.close()
    with pytest.raises(ClientError, match="has been closed"):
        stream.send(recordings[0].waveform)
    with pytest.raises(ClientError, match="has been closed"):
        bundle.open()


def test_a_segment_is_closed_on_request(server: TritonServer, recordings: list[Recording]) -> None:
    with StreamBundle(server.grpc_url) as bundle:
        stream, waveform = bundle.open(), in_16_bits(recordings[0].waveform)
        half = len(waveform) // 2
        stream.send(waveform[:half])
        said = stream.live.text
        assert said
        update = stream.finalize()
        assert [(segment.text, segment.is_final) for segment in update.segments] == [(said, True)]
        stream.change_options(method="modified_beam_search")
        assert stream.finish(waveform[half:]).text.startswith(f"{said} ")


def test_options_and_audio_that_are_refused(server: TritonServer, recordings: list[Recording]) -> None:
    with StreamBundle(server.grpc_url) as bundle:
        with pytest.raises(RequestRefused, match="beam"):
            bundle.open(beam=0).send(recordings[0].waveform)
        stream = bundle.open()
        stream.send(recordings[0].waveform[:8000])
        with pytest.raises(AudioError):
            stream.send(np.full(10, np.nan, np.float32))
        stream.change_options(nonsense=1)
        with pytest.raises(RequestRefused, match="nonsense"):
            stream.settled()
        stream.finish(recordings[0].waveform[8000:])
        with pytest.raises(ClientError, match="has ended"):
            stream.send(np.zeros(10, np.int16))


def test_a_model_without_lanes(server: TritonServer) -> None:
    with pytest.raises(ClientError, match="no bundles"), StreamBundle(server.grpc_url, model=TINY_MODEL):
        pass
    with pytest.raises(ServerUnavailable), StreamBundle("127.0.0.1:1"):
        pass


def test_more_streams_than_there_are_places(server: TritonServer, recordings: list[Recording]) -> None:
    audio = recordings[0].waveform[:8000]

    async def script(bundle: AsyncStreamBundle) -> None:
        streams = [await bundle.open() for _ in range(MAX_STREAMS + 2)]
        results = await asyncio.gather(*(stream.send(audio) for stream in streams), return_exceptions=True)
        refused = [result for result in results if isinstance(result, BaseException)]
        assert len(refused) == 2
        assert all(isinstance(error, ServerBusy) and str(MAX_STREAMS) in str(error) for error in refused)
        (lane,) = bundle.lanes
        assert (lane.capacity, lane.open) == (MAX_STREAMS, MAX_STREAMS)
        kept = [stream for stream, result in zip(streams, results, strict=True) if result not in refused]
        for stream in kept[1:]:
            await stream.close()
        await (await bundle.open()).send(audio)
        await kept[0].finish()

    run(server, script, model=TINY_STREAMING_MODEL)
    run(server, _has_all_places, model=TINY_STREAMING_MODEL)  # the lane's end has freed its streams


async def _has_all_places(bundle: AsyncStreamBundle) -> None:
    stream = await bundle.open()
    await stream.send(np.zeros(100, np.int16))
    (lane,) = bundle.lanes
    assert lane.open == 1


def test_a_lane_whose_reply_is_lost_is_given_up_and_another_opened(
    server: TritonServer,
    recordings: list[Recording],
    heard_live: list[Transcript],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    infer, lost = grpc_aio.InferenceServerClient.infer, asyncio.Event()

    async def losing(self: Any, *arguments: Any, **options: Any) -> Any:
        result = await infer(self, *arguments, **options)
        if lost.is_set():
            lost.clear()
            raise InferenceServerException("socket closed", "StatusCode.UNAVAILABLE")
        return result

    monkeypatch.setattr(grpc_aio.InferenceServerClient, "infer", losing)
    waveform = recordings[0].waveform

    async def script(bundle: AsyncStreamBundle) -> None:
        stream = await bundle.open()
        await stream.send(waveform[:8000])
        (lane,) = bundle.lanes
        lost.set()
        with pytest.raises(ServerUnavailable):
            await stream.send(waveform[8000:])
        with pytest.raises(ServerUnavailable):
            await stream.send(waveform)
        assert not bundle.lanes
        await asyncio.sleep(1.1)
        assert (await heard(bundle, waveform, 0)).text == heard_live[0].text
        assert bundle.lanes not in ([], [lane])

    run(server, script)
