"""What scripts/old-clients.py sees of upstream's clients, by a client of ours that sends the same requests: ids that
are fixed, many tasks, an end in the middle and another start, two at once, and files for perf_analyzer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
from tritonclient.utils import InferenceServerException

from moulin.arrays import Floats
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.models.open_recognizer import open_recognizer
from moulin.transcript import Transcript
from moulin.triton_repo.contract import STREAMING_MODEL_NAME
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.repository import build_offline_repository, build_streaming_repository
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.cli.command import eventually
from tests.conftest import Recording

from .sherpa_client import (
    FIRST_SEQUENCE_ID,
    chunks,
    infer,
    inputs,
    perf_input,
    replay,
    send_streaming,
    streaming_text,
    tensors,
    texts,
)

pytestmark = pytest.mark.triton

TASKS = 50
TAKEOVER_SEC = 0.4
"""Longer than the chunks of a client that does not wait between them, on a slow machine too."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The demo models as `transducer` and `transducer_streaming`, which soon give a quiet stream's id away."""
    repository = tmp_path_factory.mktemp("repository")
    options = StreamingOptions(model_name=STREAMING_MODEL_NAME, takeover_sec=TAKEOVER_SEC)
    build_offline_repository(load_bundle(DEMO_MODEL), repository, OfflineOptions(), link=True)
    build_streaming_repository(load_bundle(DEMO_STREAMING_MODEL), repository, options, link=True)
    with TritonServer(repository, ServerOptions(http_port=0, grpc_port=0, metrics_port=0)) as server:
        server.wait_ready()
        yield server.grpc_url


def at_once(url: str, calls: Callable[[Any], Sequence[Awaitable[Any]]]) -> list[Any]:
    """The results of `calls`, in one process as upstream's tasks are, errors too."""

    async def run() -> list[Any]:
        async with grpc_aio.InferenceServerClient(url) as client:
            return await asyncio.gather(*calls(client), return_exceptions=True)

    return asyncio.run(run())


def start(client: Any, waveform: Floats, *, number: int = 0, chunk: int = 0) -> str:
    """The text after one chunk of a task's stream."""
    request, first, last = list(chunks(waveform))[chunk]
    return streaming_text(
        infer(
            client,
            request,
            model=STREAMING_MODEL_NAME,
            sequence_id=FIRST_SEQUENCE_ID + number,
            sequence_start=first,
            sequence_end=last,
        )
    )


def starts(client: Any, waveform: Floats) -> bool:
    try:
        start(client, waveform)
    except InferenceServerException:
        return False
    return True


def test_fifty_tasks_of_recordings(url: str, recordings: list[Recording]) -> None:
    waveforms = [recordings[number % len(recordings)].waveform for number in range(TASKS)]

    async def send(client: Any, waveform: Floats) -> list[str]:
        request = inputs(tensors([waveform], pad_to_10_sec=True))
        return texts(await client.infer("transducer", request, outputs=[grpc.InferRequestedOutput("TRANSCRIPTS")]))

    heard = at_once(url, lambda client: [send(client, waveform) for waveform in waveforms])
    with open_recognizer(DEMO_MODEL) as recognizer:
        expected = [recognizer.transcribe([recording.waveform])[0].text for recording in recordings]
    assert [found for (found,) in heard] == [expected[number % len(recordings)] for number in range(TASKS)]


def test_fifty_tasks_of_streams(url: str, recordings: list[Recording], heard_live: list[Transcript]) -> None:
    def calls(client: Any) -> list[Awaitable[list[str]]]:
        return [
            send_streaming(
                client,
                recordings[number % len(recordings)].waveform,
                FIRST_SEQUENCE_ID + number,
                model=STREAMING_MODEL_NAME,
            )
            for number in range(TASKS)
        ]

    heard = at_once(url, calls)
    assert [found[-1] for found in heard] == [heard_live[number % len(heard_live)].text for number in range(TASKS)]


def test_a_killed_client_runs_again(url: str, recordings: list[Recording], heard_live: list[Transcript]) -> None:
    with grpc.InferenceServerClient(url) as killed:
        for chunk in range(2):
            start(killed, recordings[0].waveform, chunk=chunk)
    stopped = time.monotonic()
    with grpc.InferenceServerClient(url) as client:
        with pytest.raises(InferenceServerException, match=f"Stream {FIRST_SEQUENCE_ID} is open"):
            start(client, recordings[1].waveform)
        assert eventually(lambda: starts(client, recordings[1].waveform))
        assert time.monotonic() - stopped >= TAKEOVER_SEC
        for chunk in range(1, len(list(chunks(recordings[1].waveform)))):
            text = start(client, recordings[1].waveform, chunk=chunk)
    assert text == heard_live[1].text


def test_two_at_once(url: str, recordings: list[Recording], heard_live: list[Transcript]) -> None:
    """The second client's tasks start between chunks of the first's, which hears all; the second is told the id."""
    tasks = range(5)
    heard = dict.fromkeys(tasks, "")
    with grpc.InferenceServerClient(url) as first, grpc.InferenceServerClient(url) as second:
        lengths = [len(list(chunks(recordings[number].waveform))) for number in tasks]
        for chunk in range(max(lengths)):
            for number in tasks:
                if chunk < lengths[number]:
                    heard[number] = start(first, recordings[number].waveform, number=number, chunk=chunk)
            if chunk == 0:
                for number in tasks:
                    with pytest.raises(InferenceServerException, match=f"Stream {FIRST_SEQUENCE_ID + number} is open"):
                        start(second, recordings[number + 5].waveform, number=number)
        assert list(heard.values()) == [heard_live[number].text for number in tasks]
        # Its ids are free again as soon as the first has ended.
        start(second, recordings[0].waveform)
        start(second, recordings[0].waveform, chunk=lengths[0] - 1)


def test_files_for_perf_analyzer(url: str, recordings: list[Recording], heard_live: list[Transcript]) -> None:
    waveform = recordings[0].waveform
    (text,) = replay(url, perf_input(waveform, streaming=True), model=STREAMING_MODEL_NAME)
    assert text == heard_live[0].text
    with open_recognizer(DEMO_MODEL) as recognizer:
        expected = recognizer.transcribe([waveform])[0].text
    assert replay(url, perf_input(waveform, streaming=False)) == [expected]
