"""The blocking and the asyncio client, through one set of tests, on the real tritonserver."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.client import AsyncClient, Client
from moulin.errors import AudioError, ClientError, OptionsError, ServerUnavailable
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from tests.conftest import MAX_BATCH, TINY_MODEL, TINY_STREAMING_MODEL, Recording
from tests.launch.repository import write_model


class Call(Protocol):
    """Make a client, call one of its methods, close it."""

    def __call__(self, url: str, name: str, /, *arguments: Any, **options: Any) -> Any: ...


def _blocking(url: str, name: str, /, *arguments: Any, settings: dict[str, Any] | None = None, **options: Any) -> Any:
    with Client(url, **(settings or {})) as client:
        return getattr(client, name)(*arguments, **options)


def _asyncio(url: str, name: str, /, *arguments: Any, settings: dict[str, Any] | None = None, **options: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(url, **(settings or {})) as client:
            call: Callable[..., Coroutine[Any, Any, Any]] = getattr(client, name)
            return await call(*arguments, **options)

    return asyncio.run(run())


@pytest.fixture(params=[_blocking, _asyncio], ids=["Client", "AsyncClient"])
def call(request: pytest.FixtureRequest) -> Call:
    made: Call = request.param
    return made


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Something that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.triton
def test_a_file_and_arrays(call: Call, server: TritonServer, recordings: list[Recording]) -> None:
    recording = recordings[0]
    pcm = np.round(recording.waveform * 32768).astype(np.int16)
    for audio in (recording.file, str(recording.file), recording.waveform, recording.waveform.astype(np.float64), pcm):
        heard = call(server.grpc_url, "transcribe", audio)
        assert heard.text == recording.text
        assert heard.duration_sec == recording.heard.duration_sec
        assert [word.word for word in heard.words] == [word.word for word in recording.heard.words]


@pytest.mark.triton
def test_a_batch(call: Call, server: TritonServer, recordings: list[Recording]) -> None:
    audios = [recordings[0].file, np.zeros(0, np.float32), recordings[1].waveform]
    heard = call(server.grpc_url, "transcribe_batch", audios)
    assert [transcript.text for transcript in heard] == [recordings[0].text, "", recordings[1].text]
    assert call(server.grpc_url, "transcribe_batch", []) == []


@pytest.mark.triton
def test_another_model_and_options(call: Call, server: TritonServer, snippets: list[tuple[Floats, str]]) -> None:
    waveform, text = snippets[0]
    settings = {"model": TINY_MODEL}
    assert call(server.grpc_url, "transcribe", waveform, settings=settings).text == text
    for options in ({"blank_penalty": -100}, {"method": "modified_beam_search", "beam": 2, "blank_penalty": -100}):
        assert call(server.grpc_url, "transcribe", waveform, settings=settings, **options).text == ""
        assert call(server.grpc_url, "transcribe_batch", [waveform], options, settings=settings)[0].text == ""


@pytest.mark.triton
def test_readiness(call: Call, server: TritonServer) -> None:
    assert call(server.grpc_url, "is_ready") is True
    assert call(server.grpc_url, "is_ready", settings={"model": "nobody"}) is False


@pytest.mark.triton
def test_what_the_server_refuses(call: Call, server: TritonServer, snippets: list[tuple[Floats, str]]) -> None:
    waveform, _ = snippets[0]
    with pytest.raises(ClientError, match="no decoding option 'beams'") as caught:
        call(server.grpc_url, "transcribe", waveform, beams=3)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("the options are method, beam")
    with pytest.raises(ClientError, match=f"batch-size must be <= {MAX_BATCH}"):
        call(server.grpc_url, "transcribe_batch", [waveform] * (MAX_BATCH + 1))
    with pytest.raises(ClientError, match=r"at most .* s of audio at once"):
        call(server.grpc_url, "transcribe", np.zeros(121 * 16000, np.float32))
    with pytest.raises(ClientError, match="has no model 'nobody'"):
        call(server.grpc_url, "transcribe", waveform, settings={"model": "nobody"})


@pytest.mark.triton
def test_what_never_leaves_the_client(call: Call, server: TritonServer, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="does not exist"):
        call(server.grpc_url, "transcribe", tmp_path / "absent.wav")
    with pytest.raises(AudioError, match="peak of 20000"):
        call(server.grpc_url, "transcribe_batch", [np.zeros(9, np.float32), np.full(9, 2e4, np.float32)])


@pytest.mark.triton
def test_a_timeout(call: Call, server: TritonServer, recordings: list[Recording]) -> None:
    audios = [recordings[0].waveform] * MAX_BATCH
    with pytest.raises(ClientError, match="did not answer in time"):
        call(server.grpc_url, "transcribe_batch", audios, settings={"timeout_sec": 0.01})


def test_nobody_listens(call: Call, silent_url: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ServerUnavailable, match=f"No Triton server answers at {url}: Connection refused") as caught:
            call(url, "transcribe", np.zeros(160, np.float32))
        assert "moulin serve" in str(caught.value.hint)
        assert call(url, "is_ready") is False
    with pytest.raises(ServerUnavailable, match=r"No Triton server answers at no\.such\.host\.invalid:8001"):
        call("no.such.host.invalid:8001", "transcribe", np.zeros(160, np.float32))
    with pytest.raises(ClientError, match="did not answer in time"):
        call(silent_url, "transcribe", np.zeros(160, np.float32), settings={"timeout_sec": 0.2})


@pytest.mark.triton
def test_the_http_port_instead_of_the_grpc_one(call: Call, server: TritonServer) -> None:
    with pytest.raises(ServerUnavailable) as caught:
        call(server.http_url, "transcribe", np.zeros(160, np.float32))
    assert server.http_url in caught.value.message
    assert "gRPC" in f"{caught.value}"


def test_an_address_with_a_scheme(call: Call) -> None:
    with pytest.raises(OptionsError, match="HOST:PORT"):
        call("http://127.0.0.1:8000", "is_ready")


@pytest.mark.triton
def test_a_model_that_moulin_did_not_write(call: Call, tmp_path: Path) -> None:
    """Its contract is sherpa's, without RESULT."""
    config = """
backend: "python"
max_batch_size: 4
input [{name: "WAV" data_type: TYPE_FP32 dims: [-1]}, {name: "WAV_LENS" data_type: TYPE_INT32 dims: [1]}]
output [{name: "TRANSCRIPTS" data_type: TYPE_STRING dims: [1]}]
instance_group [{kind: KIND_CPU count: 1}]
"""
    repository = write_model(tmp_path / "models", "transducer", config=config)
    with TritonServer(repository, ServerOptions(http_port=0, grpc_port=0, metrics_port=0)) as foreign:
        foreign.wait_ready()
        with pytest.raises(ClientError, match="no RESULT"):
            call(foreign.grpc_url, "transcribe", np.zeros(160, np.float32))
    shutil.rmtree(repository)


@pytest.mark.triton
def test_the_models(call: Call, server: TritonServer) -> None:
    models = {model.name: model for model in call(server.grpc_url, "models")}
    assert set(models) == {"transducer", "transducer_streaming", TINY_MODEL, TINY_STREAMING_MODEL}
    assert [models[name].streaming for name in ("transducer", "transducer_streaming")] == [False, True]
    assert models["transducer"].max_utterance_sec == 39.78  # what the export takes, less the silence appended
    with pytest.raises(ServerUnavailable):
        call("127.0.0.1:1", "models")


@pytest.mark.triton
def test_another_model_for_a_call(call: Call, server: TritonServer, snippets: list[tuple[Floats, str]]) -> None:
    waveform, text = snippets[0]
    (heard,) = call(server.grpc_url, "transcribe_batch", [waveform], model=TINY_MODEL, request_id="order-66")
    assert heard.text == text
