"""A stream whose real servers are killed and stopped, one after another."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from moulin.audio.waveform import as_floats, in_16_bits
from moulin.bundle.load import load_bundle
from moulin.client import AsyncStreamPool, StreamBundle
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.launch.stubs import running_stubs
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from moulin.triton_repo.repository import build_streaming_repository
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES
from tests.conftest import Recording

pytestmark = pytest.mark.triton

MODEL = BUNDLES / "lstm-streaming"
_PATIENCE_SEC = 300.0


@pytest.fixture(params=[4])
def servers(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[TritonServer]]:
    build_streaming_repository(load_bundle(MODEL), tmp_path, StreamingOptions())
    with ExitStack() as running:
        started = [running.enter_context(TritonServer(tmp_path, ServerOptions(0, 0, 0))) for _ in range(request.param)]
        for server in started:
            server.wait_ready()
        yield started
        for server in started:
            server.kill()


def open_streams(server: TritonServer) -> int:
    found = re.search(r"^moulin_streams\{[^}]*\} (\S+)", httpx.get(server.metrics_url, timeout=60).text, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def alone(recording: Recording) -> str:
    with open_stream_recognizer(MODEL) as recognizer:
        stream = recognizer.open(StreamOptions(endpoint=False))
        recognizer.accept(stream, as_floats(in_16_bits(recording.waveform)))
        recognizer.finish(stream)
        while recognizer.is_ready(stream):
            recognizer.step([stream])
        return recognizer.text(stream)


def test_killed_stopped_and_with_a_stopped_model(servers: list[TritonServer], recordings: list[Recording]) -> None:
    """No segment is final before the end, so that the last server hears everything, as one alone does."""
    waveform = recordings[0].waveform
    pieces = [waveform[begin : begin + 8000] for begin in range(0, len(waveform), 8000)]

    async def script() -> None:
        left = list(servers)

        async def lose(how: signal.Signals, *, model: bool = False) -> None:
            await asyncio.sleep(1.2)  # metrics are renewed once a second
            (holder,) = [server for server in left if open_streams(server)]
            left.remove(holder)
            assert holder.pid is not None
            for pid in running_stubs(holder.pid) if model else [holder.pid]:
                os.kill(pid, how)

        async with AsyncStreamPool([server.grpc_url for server in servers]) as pool:
            stream = await pool.open(endpoint=False)
            for number, piece in enumerate(pieces[:-1]):
                await stream.send(piece)
                match number:
                    case 2:
                        await lose(signal.SIGKILL)
                    case 4:
                        await lose(signal.SIGSTOP)
                    case 6:
                        await lose(signal.SIGSTOP, model=True)
            transcript = await stream.finish(pieces[-1])
            assert stream.moves == 3
        assert transcript.text == alone(recordings[0])

    async def bounded() -> None:
        async with asyncio.timeout(_PATIENCE_SEC):
            await script()

    asyncio.run(bounded())


@pytest.mark.parametrize("servers", [2], indirect=True)
def test_from_threads(servers: list[TritonServer], recordings: list[Recording]) -> None:
    with StreamBundle([server.grpc_url for server in servers]) as bundle:
        streams = [bundle.open(endpoint=False) for _ in range(4)]
        for stream in streams:
            stream.send(recordings[0].waveform[:30_000])
        servers[0].kill()
        for stream in streams:
            assert stream.finish(recordings[0].waveform[30_000:]).text == alone(recordings[0])
