"""`moulin gateway` as a process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from websockets import ConnectionClosed
from websockets.asyncio.client import connect

from moulin.cli.page_options import PageOptions
from moulin.gateway.riva import messages
from moulin.launch.ports import claim_ports
from moulin.launch.server import TritonServer
from moulin.transcript import Transcript
from tests.conftest import Recording

from .command import MOULIN, alive, eventually, moulin

TLS = Path(__file__).parents[1] / "data" / "tls"
Start = Callable[..., tuple[str, subprocess.Popen[bytes], Path]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Runs it with these arguments: its address, the process and its log."""
    running: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, **environ: str) -> tuple[str, subprocess.Popen[bytes], Path]:
        port = claim_ports("127.0.0.1", {"--port": 0})["--port"]
        log = tmp_path / f"log-{port}"
        with log.open("wb") as err:
            running.append(
                subprocess.Popen(
                    [MOULIN, "gateway", "--port", str(port), *arguments],
                    stdin=subprocess.DEVNULL,
                    stderr=err,
                    env={**os.environ, **environ},
                )
            )
        return f"localhost:{port}", running[-1], log

    yield run
    for process in running:
        process.kill()
        process.wait()


def _answers(url: str, **options: Any) -> bool:
    try:
        return httpx.get(f"{url}/healthz", **options).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.triton
def test_a_key_tls_and_a_line_of_json(start: Start, server: TritonServer, recordings: list[Recording]) -> None:
    address, process, log = start(
        *("--triton", server.grpc_url, "--host", "0.0.0.0"),
        *("--tls-certificate", str(TLS / "certificate.pem"), "--tls-key", str(TLS / "key.pem")),
        MOULIN_API_KEYS="one, two",
    )
    trusted = ssl.create_default_context(cafile=TLS / "certificate.pem")
    assert eventually(lambda: _answers(f"https://{address}", verify=trusted)), log.read_text()
    url = f"https://{address}/v1/audio/transcriptions"
    form: dict[str, Any] = {
        "files": {"file": recordings[0].file.read_bytes()},
        "data": {"model": "whisper-1"},
        "timeout": 60,
    }
    assert httpx.post(url, **form, verify=trusted).status_code == 401
    headers = {"authorization": "Bearer two", "x-request-id": "order-66"}
    answer = httpx.post(url, **form, verify=trusted, headers=headers)
    assert answer.json()["text"] == recordings[0].text
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 0
    listening, *lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert listening["message"] == f"Listening on https://0.0.0.0:{address.rpartition(':')[2]}"
    assert [line["status"] for line in lines] == [401, 200]
    assert lines[1]["request_id"] == "order-66"
    assert lines[1]["model"] == "transducer"
    assert lines[1]["audio_sec"] == pytest.approx(recordings[0].heard.duration_sec, abs=0.001)
    assert "two" not in log.read_text().split()


@pytest.mark.triton
def test_workers_share_a_port_and_their_metrics(
    start: Start, server: TritonServer, recordings: list[Recording]
) -> None:
    address, process, log = start("--triton", server.grpc_url, "--workers", "2")
    assert eventually(lambda: _answers(f"http://{address}")), log.read_text()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    first, second = map(int, children.read_text().split())
    form: dict[str, Any] = {"files": {"file": recordings[0].file.read_bytes()}, "data": {"model": "whisper-1"}}
    for _ in range(6):
        answer = httpx.post(f"http://{address}/v1/audio/transcriptions", **form, timeout=60)
        assert answer.json()["text"] == recordings[0].text
    answered = 'moulin_gateway_requests_total{method="POST",route="/v1/audio/transcriptions",status="200"} 6.0'
    for _ in range(6):  # whichever of them answers
        metrics = httpx.get(f"http://{address}/metrics").text
        assert answered in metrics
        assert "moulin_gateway_transcribing 0.0" in metrics
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: "A worker ended with exit code -9; it is started again" in log.read_text())
    assert eventually(lambda: len(children.read_text().split()) == 2)
    assert httpx.post(f"http://{address}/v1/audio/transcriptions", **form, timeout=60).status_code == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 0
    assert eventually(lambda: not alive(second))
    assert "Traceback" not in log.read_text()


@pytest.mark.triton
def test_rivas_grpc_of_workers_and_at_the_end(start: Start, server: TritonServer, recordings: list[Recording]) -> None:
    """Both workers answer on one port; on SIGTERM a call under way is finished, and no other taken."""
    address, process, log = start("--triton", server.grpc_url, "--workers", "2", "--riva-port", "0")
    assert eventually(lambda: _answers(f"http://{address}")), log.read_text()
    (riva,) = re.findall(r"Listening on (\S+:\d+) for Riva", log.read_text())
    config = messages.RecognitionConfig(sample_rate_hertz=16_000)
    live = messages.StreamingRecognizeRequest(streaming_config={"config": config, "interim_results": True})
    samples = np.rint(recordings[0].waveform * 32768).astype("<i2")
    refused = threading.Event()

    def talking() -> Iterator[bytes]:
        yield live.SerializeToString()
        for piece in np.array_split(samples, 10):
            yield messages.StreamingRecognizeRequest(audio_content=piece.tobytes()).SerializeToString()
        refused.wait(60)

    def channel() -> Any:
        return grpc.insecure_channel(riva, options=[("grpc.use_local_subchannel_pool", 1)])

    def recognize(connected: Any) -> Any:
        request = messages.RecognizeRequest(config=config, audio=samples.tobytes()).SerializeToString()
        answer = connected.unary_unary(f"/{messages.SERVICE}/Recognize")(request, timeout=60)
        return messages.RecognizeResponse.FromString(answer)

    for _ in range(8):
        with channel() as connected:
            (result,) = recognize(connected).results
            assert result.alternatives[0].transcript == recordings[0].text
    with channel() as connected:
        responses = connected.stream_stream(f"/{messages.SERVICE}/StreamingRecognize")(talking())
        next(responses)
        process.send_signal(signal.SIGTERM)

        def is_refused() -> bool:
            with channel() as other:
                try:
                    recognize(other)
                except grpc.RpcError as error:
                    return bool(error.code() == grpc.StatusCode.UNAVAILABLE)
                return False

        assert eventually(is_refused)
        refused.set()
        last = messages.StreamingRecognizeResponse.FromString(list(responses)[-1])
    assert last.results[0].is_final
    assert process.wait(300) == 0
    assert "Traceback" not in log.read_text()


def _live(address: str, recording: Recording, script: Callable[[Any], Awaitable[None]]) -> None:
    """`script` gets a live connection on which the first half of the recording has been heard."""

    async def talk() -> None:
        async with (
            asyncio.timeout(300),
            connect(f"ws://{address}/v1/stream?encoding=f32le", max_size=None) as connection,
        ):
            await connection.send(recording.waveform[: len(recording.waveform) // 2].tobytes())
            while json.loads(await connection.recv())["type"] != "partial":
                pass
            await script(connection)

    asyncio.run(talk())


async def _code_of_its_end(connection: Any) -> int | None:
    """Read until the connection is closed: the code that came, if one did."""
    with suppress(ConnectionClosed):
        while True:
            await connection.recv()
    code: int | None = connection.close_code
    return code


@pytest.mark.triton
def test_what_is_open_comes_to_its_end_and_nothing_new_begins(
    start: Start, server: TritonServer, recordings: list[Recording], heard_live: list[Transcript]
) -> None:
    address, process, log = start("--triton", server.grpc_url, "--drain-sec", "300")
    assert eventually(lambda: _answers(f"http://{address}")), log.read_text()
    upload: dict[str, Any] = {"files": {"file": recordings[0].file.read_bytes()}, "data": {"model": "whisper-1"}}

    async def script(connection: Any) -> None:
        with (
            httpx.Client(base_url=f"http://{address}", timeout=60) as one,
            httpx.Client(base_url=one.base_url) as other,
        ):
            assert [client.get("/readyz").status_code for client in (one, other)] == [200, 200]
            async with connect(f"ws://{address}/v1/realtime") as idle:
                await idle.recv()
                process.send_signal(signal.SIGTERM)
                assert await _code_of_its_end(idle) == 1012
            # On connections that were there before; nobody gets another.
            assert one.get("/readyz").status_code == 503
            refused = other.post("/v1/audio/transcriptions", **upload)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_stopping")
            with pytest.raises(httpx.ConnectError):
                one.get("/healthz")
        await connection.send(recordings[0].waveform[len(recordings[0].waveform) // 2 :].tobytes())
        await connection.send('{"type": "end"}')
        while (event := json.loads(await connection.recv()))["type"] != "done":
            assert event["type"] != "error", event
        assert event["text"] == heard_live[0].text

    _live(address, recordings[0], script)
    assert process.wait(120) == 0
    assert "Traceback" not in log.read_text()


@pytest.mark.triton
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_second_sigterm_ends_it(
    start: Start, server: TritonServer, recordings: list[Recording], workers: str
) -> None:
    address, process, log = start("--triton", server.grpc_url, "--drain-sec", "3000", "--workers", workers)
    assert eventually(lambda: _answers(f"http://{address}")), log.read_text()

    async def script(connection: Any) -> None:
        process.send_signal(signal.SIGTERM)
        assert eventually(lambda: not _answers(f"http://{address}"))
        await connection.send(recordings[0].waveform.tobytes())
        while json.loads(await connection.recv())["type"] != "final":  # it goes on
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        await _code_of_its_end(connection)

    _live(address, recordings[0], script)


@pytest.mark.triton
def test_what_takes_longer_than_it_drains_is_closed(
    start: Start, server: TritonServer, recordings: list[Recording]
) -> None:
    address, process, log = start("--triton", server.grpc_url, "--drain-sec", "0.5")
    assert eventually(lambda: _answers(f"http://{address}")), log.read_text()

    async def script(connection: Any) -> None:
        process.send_signal(signal.SIGTERM)
        assert await _code_of_its_end(connection) == 1012

    _live(address, recordings[0], script)
    assert process.wait(60) == 0


def test_it_waits_for_a_triton_that_is_not_there_yet(start: Start) -> None:
    address, process, log = start("--triton", "127.0.0.1:1", "--log-format", "text")
    assert eventually(lambda: _answers(f"http://{address}")), log.read_text()
    assert httpx.get(f"http://{address}/readyz").status_code == 503
    assert httpx.get(f"http://{address}/v1/models").status_code == 503
    process.send_signal(signal.SIGINT)
    assert process.wait(300) == 0
    assert "GET /v1/models 503" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "Expected API keys for a gateway that listens on 0.0.0.0"),
        (["--tls-key", "/no/key.pem"], "Expected a TLS certificate and its key"),
        (["--api-keys", "/no/keys"], "Cannot read the API keys in /no/keys: No such file or directory"),
        (["--max-streams", "0"], "Gateway setting max_streams: "),
        (["--stream-idle-sec", "0"], "Gateway setting stream_idle_sec: "),
        (["--triton", "http://x:1"], "Expected the server's gRPC address as HOST:PORT, got 'http://x:1'"),
    ],
)
def test_what_cannot_be_served(arguments: list[str], message: str) -> None:
    assert _failure(*arguments).startswith(message)


def _failure(*arguments: object) -> str:
    """The message of the one line of JSON with which a gateway ends off a terminal."""
    (line,) = moulin("gateway", *arguments).expect(1).err.splitlines()
    record = json.loads(line)
    assert (record["level"], record["logger"]) == ("error", "moulin.cli.gateway")
    return str(record["message"])


def test_an_error_in_words_has_the_date() -> None:
    done = moulin("gateway", "--host", "0.0.0.0", "--log-format", "text").expect(1)
    error, hint = done.err.splitlines()
    assert re.match(r"\d{4}-\d\d-\d\dT\S+ moulin: Expected API keys", error)
    assert re.match(r"\d{4}-\d\d-\d\dT\S+   hint: give --api-keys", hint)


@pytest.mark.parametrize("flag", ["--port", "--riva-port"])
def test_a_port_that_is_none(flag: str) -> None:
    done = moulin("gateway", flag, "99999").expect(1)
    assert done.err == f"moulin: Expected {flag[2:]} of 0 to 65535, got 99999\n"


def test_an_empty_file_of_keys(tmp_path: Path) -> None:
    """Would otherwise let everybody in."""
    (tmp_path / "keys").write_text("# none yet\n\n")
    message = _failure("--api-keys", tmp_path / "keys")
    assert message.startswith(f"Expected an API key a line in {tmp_path / 'keys'}, got none")


def test_a_port_in_use(start: Start) -> None:
    address, _, log = start("--triton", "127.0.0.1:1")
    assert eventually(lambda: _answers(f"http://{address}")), log.read_text()
    port = address.rpartition(":")[2]
    assert _failure("--port", port).startswith(f"Expected port {port} on 127.0.0.1 to be free for the gateway")


def test_the_operator_forbids_the_page_to_keep_texts(start: Start) -> None:
    """Of `moulin serve` it goes on the command line of its gateway."""
    address, _, log = start("--triton", "127.0.0.1:9", *PageOptions(no_history=True).arguments())
    assert eventually(lambda: _answers(f"http://{address}")), log.read_text()
    assert httpx.get(f"http://{address}/page/settings.json").json() == {"history": False}
