"""`moulin serve` as a process: how it starts, how it says so, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from moulin.client import Client, StreamBundle
from moulin.errors import ClientError, ServerBusy, ServerUnavailable
from moulin.launch.answers import answers
from moulin.launch.signal_echo import ECHO_SEC
from moulin.transcript import Transcript
from tests.bundles import BUNDLES
from tests.conftest import Recording

from .command import MOULIN, Serving, alive, eventually, moulin

FREE_PORTS = ["--http-port=0", "--grpc-port=0", "--metrics-port=0", "--gateway-port=0"]
TLS = Path(__file__).parents[1] / "data" / "tls"
SERVE_LIVE = [MOULIN, "serve", str(BUNDLES / "lstm-streaming"), *FREE_PORTS]
SERVE = [MOULIN, "serve", str(BUNDLES / "conformer-offline"), *FREE_PORTS]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    started: list[Serving] = []

    def run(*command: str) -> Serving:
        started.append(Serving.start(list(command), tmp_path / str(len(started))))
        return started[-1]

    yield run
    for serving in started:
        serving.kill()


def _answer_of_gateway(serving: Serving, recording: Recording) -> httpx.Response:
    """What a program written for OpenAI gets."""
    with recording.file.open("rb") as file:
        return httpx.post(
            f"http://{serving.gateway_address}/v1/audio/transcriptions",
            files={"file": file},
            data={"model": "whisper-1"},
            timeout=60,
        )


def _transcribed_by_gateway(serving: Serving, recording: Recording) -> str:
    answer = _answer_of_gateway(serving, recording)
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["text"]
    return text


@pytest.mark.triton
def test_the_demo_models_are_announced_and_served(start: Callable[..., Serving], recordings: list[Recording]) -> None:
    serving = start(MOULIN, "serve", *FREE_PORTS, "--riva-port", "0")
    serving.wait_ready()
    assert re.search(r"   Riva +127\.0\.0\.1:\d+$", serving.err, re.MULTILINE)
    assert "Serving digits-en (zipformer2, offline, int8) as transducer on cpu\n" in serving.err
    assert "Serving digits-en-streaming (zipformer2, streaming, fp32) as transducer_streaming on cpu\n" in serving.err
    assert f"moulin transcribe speech.wav --url {serving.grpc_url}\n" in serving.err
    assert f"moulin stream speech.wav --url {serving.grpc_url}\n" in serving.err
    assert _transcribed_by_gateway(serving, recordings[0]) == recordings[0].text
    with Client(serving.grpc_url) as client:
        assert client.transcribe(recordings[0].file).text == recordings[0].text
    streamed = moulin("stream", recordings[0].file, "--url", serving.grpc_url).expect(0)
    assert streamed.out == "ONE THREE TWO FOUR FIVE FIVE SIX TWO THREE SEVEN FIVE\n"
    serving.process.send_signal(signal.SIGTERM)
    assert serving.process.wait(300) == 0
    assert serving.err.endswith("Stopped.\n")
    assert serving.out == ""
    serving.assert_nothing_left(serving.process.pid)


@pytest.mark.triton
def test_ctrl_c_under_another_name(start: Callable[..., Serving], tmp_path: Path) -> None:
    """As systemd starts it, with a socket for messages."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        by_systemd = ("env", f"NOTIFY_SOCKET={tmp_path / 'notify'}", "WATCHDOG_USEC=60000000")
        serving = start(*by_systemd, *SERVE, "--name", "english", "--quiet", "--no-gateway")
        serving.wait_ready()
        assert "OpenAI" not in serving.err
        lines = [line.partition(" ")[2] for line in serving.err.splitlines()]
        assert lines[0] == "Loading conformer-offline ..."
        announced = "Serving conformer-offline (conformer, offline, fp32) as english on cpu"
        assert announced in lines
        assert all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in serving.err.splitlines())
        assert f"--url {serving.grpc_url} --name english\n" in serving.err
        for child in serving.family - {serving.process.pid}:
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()
        messages: list[str] = []

        def told(message: str) -> bool:
            with suppress(BlockingIOError):
                messages.append(manager.recv(4096).decode())
            return message in messages

        assert eventually(lambda: told("WATCHDOG=1"))
        serving.process.send_signal(signal.SIGINT)
        assert serving.process.wait(300) == 0
        stopping = "STOPPING=1\nSTATUS=Stopping; what is open has 10 s"
        assert eventually(lambda: told(stopping))
        usual = ["STATUS=Loading conformer-offline", f"READY=1\nSTATUS={announced}", "WATCHDOG=1", stopping]
        assert list(dict.fromkeys(messages)) == usual
    serving.assert_nothing_left(serving.process.pid)


@pytest.mark.needs("torch")
@pytest.mark.triton
def test_a_checkpoint_for_recordings_and_live_audio(start: Callable[..., Serving], recordings: list[Recording]) -> None:
    checkpoint = BUNDLES / "zipformer2-streaming" / "epoch-1.pt"
    serving = start(MOULIN, "serve", str(checkpoint), *FREE_PORTS)
    serving.wait_ready()
    assert "(zipformer2, offline, fp32) as transducer on cpu\n" in serving.err
    assert "(zipformer2, streaming, fp32) as transducer_streaming on cpu\n" in serving.err
    audio = recordings[0].file
    streamed = moulin("stream", audio, "--url", serving.grpc_url).expect(0).out
    assert streamed == moulin("transcribe", audio, "--url", serving.grpc_url, "--name", "transducer_streaming").out
    whole = moulin("transcribe", audio, "--url", serving.grpc_url).expect(0).out
    assert whole == moulin("transcribe", audio, "--model", checkpoint).expect(0).out
    serving.process.send_signal(signal.SIGTERM)
    assert serving.process.wait(300) == 0


@pytest.mark.needs("torch")
@pytest.mark.triton
def test_a_checkpoint_for_live_audio_beside_an_offline_model(
    start: Callable[..., Serving], recordings: list[Recording]
) -> None:
    checkpoint = BUNDLES / "lstm-streaming" / "epoch-1.pt"
    models = [str(checkpoint), str(BUNDLES / "conformer-offline")]
    serving = start(MOULIN, "serve", *models, "--streaming", *FREE_PORTS)
    serving.wait_ready()
    assert "Serving lstm-streaming (lstm, streaming, fp32) as transducer_streaming on cpu\n" in serving.err
    audio = recordings[0].file
    streamed = moulin("stream", audio, "--url", serving.grpc_url).expect(0).out
    assert len(streamed) > 20
    assert streamed == moulin("stream", audio, "--model", checkpoint.parent).expect(0).out
    assert streamed == moulin("stream", audio, "--model", checkpoint).expect(0).out
    serving.process.send_signal(signal.SIGTERM)
    assert serving.process.wait(300) == 0
    serving.assert_nothing_left(serving.process.pid)


@pytest.mark.needs("torch")
@pytest.mark.triton
def test_a_checkpoint_for_whole_utterances(start: Callable[..., Serving], recordings: list[Recording]) -> None:
    checkpoint = BUNDLES / "zipformer2-offline" / "epoch-1.pt"
    serving = start(MOULIN, "serve", str(checkpoint.parent), "--engine", "torch", *FREE_PORTS)
    serving.wait_ready()
    assert "Serving zipformer2-offline (zipformer2, offline, fp32) as transducer on cpu\n" in serving.err
    files = [str(recording.file) for recording in recordings[:3]]
    texts = moulin("transcribe", *files, "--url", serving.grpc_url).expect(0).out
    assert texts == moulin("transcribe", *files, "--model", checkpoint.parent, "--engine", "onnxruntime").expect(0).out
    assert texts == moulin("transcribe", *files, "--model", checkpoint).expect(0).out


@pytest.mark.triton
def test_the_layout_ensemble(start: Callable[..., Serving], recordings: list[Recording]) -> None:
    serving = start(*SERVE, "--layout", "ensemble", "--quiet")
    serving.wait_ready()
    text = moulin("transcribe", recordings[0].file, "--url", serving.grpc_url).expect(0).out
    assert text == moulin("transcribe", recordings[0].file, "--model", BUNDLES / "conformer-offline").expect(0).out
    serving.process.send_signal(signal.SIGINT)
    assert serving.process.wait(300) == 0
    serving.assert_nothing_left(serving.process.pid)


@pytest.mark.triton
def test_ctrl_c_while_it_loads(start: Callable[..., Serving]) -> None:
    serving = start(*SERVE)
    assert eventually(lambda: "Loading" in serving.err)
    serving.family = serving.find_family()
    serving.process.send_signal(signal.SIGINT)
    assert serving.process.wait(300) == 0
    assert "Traceback" not in serving.err
    serving.assert_nothing_left(serving.process.pid)


@pytest.mark.triton
def test_it_ends_with_the_process_that_started_it(start: Callable[..., Serving]) -> None:
    serving = start("sh", "-c", f"{shlex.join(SERVE)}; echo ended")
    serving.wait_ready()
    pid = serving.moulin_pid()
    assert pid != serving.process.pid
    serving.process.kill()
    serving.process.wait()
    serving.assert_nothing_left(pid)
    assert "Stopping, as the process that started it has ended (nohup keeps it); what is open has" in serving.err


@pytest.mark.triton
def test_streams_come_to_their_end_when_it_stops(
    start: Callable[..., Serving], recordings: list[Recording], heard_live: list[Transcript]
) -> None:
    """Of lanes and sequences; nothing new is taken, and it ends when they have."""
    serving = start(MOULIN, "serve", *FREE_PORTS, "--no-gateway", "--drain-sec", "300")
    serving.wait_ready()
    waveform = recordings[0].waveform
    with StreamBundle(serving.grpc_url) as bundle, Client(serving.grpc_url) as client, client.stream() as sequence:
        stream = bundle.open()
        for one in (stream, sequence):
            one.send(waveform[:30_000])
        serving.process.send_signal(signal.SIGTERM)

        def is_refused() -> bool:
            try:
                bundle.open().send(waveform[:1000])
            except (ServerBusy, ServerUnavailable):
                return True
            return False

        assert eventually(is_refused)
        with pytest.raises(ClientError), client.stream() as late:
            late.send(waveform)
        for one in (stream, sequence):
            assert one.finish(waveform[30_000:]).text == heard_live[0].text
        assert serving.process.wait(120) == 0
    assert serving.err.endswith("Stopped.\n")
    serving.assert_nothing_left(serving.process.pid)


@pytest.mark.triton
def test_the_second_sigterm_ends_it_with_a_stream_open(
    start: Callable[..., Serving], recordings: list[Recording]
) -> None:
    serving = start(*SERVE_LIVE, "--drain-sec", "3000")
    serving.wait_ready()
    with Client(serving.grpc_url) as client, client.stream() as stream:
        stream.send(recordings[0].waveform[:30_000])
        serving.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: not answers(serving.gateway_address, "/healthz"))
        stream.send(recordings[0].waveform[30_000:60_000])
        time.sleep(10 * ECHO_SEC)  # else it would be taken for the echo of the first
        serving.process.send_signal(signal.SIGTERM)
        assert serving.process.wait(60) == 128 + signal.SIGTERM
    serving.assert_nothing_left(serving.process.pid)


@pytest.mark.triton
def test_under_nohup_it_outlives_its_parent_and_its_terminal(start: Callable[..., Serving]) -> None:
    serving = start("sh", "-c", f"trap '' HUP; {shlex.join(SERVE)} & wait")
    serving.wait_ready()
    pid = serving.moulin_pid()
    serving.process.kill()
    serving.process.wait()
    os.kill(pid, signal.SIGHUP)
    # It looks for its parent once a second; that it still stands after two is the best that a test can say.
    assert not eventually(lambda: not alive(pid), 2.5)
    with Client(serving.grpc_url) as client:
        assert client.is_ready()
    os.kill(pid, signal.SIGTERM)
    serving.assert_nothing_left(pid)


@pytest.mark.triton
def test_a_closed_terminal_stops_it(start: Callable[..., Serving]) -> None:
    serving = start(*SERVE)
    serving.wait_ready()
    serving.process.send_signal(signal.SIGHUP)
    assert serving.process.wait(300) == 0
    serving.assert_nothing_left(serving.process.pid)


@pytest.mark.triton
def test_a_model_whose_process_dies_is_served_again(start: Callable[..., Serving], recordings: list[Recording]) -> None:
    serving = start(*SERVE)
    serving.wait_ready()
    expected = _transcribed_by_gateway(serving, recordings[0])
    (stub,) = [pid for pid in serving.family if b"\0transducer_0_0\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(stub, signal.SIGKILL)
    assert eventually(
        lambda: "The process of transducer_0_0 (SIGKILL) has died; Triton is started again" in serving.err
    )
    assert eventually(lambda: _answer_of_gateway(serving, recordings[0]).status_code == 503)
    assert eventually(lambda: _answer_of_gateway(serving, recordings[0]).status_code == 200)
    assert _transcribed_by_gateway(serving, recordings[0]) == expected
    serving.family |= serving.find_family()
    serving.process.send_signal(signal.SIGTERM)
    assert serving.process.wait(300) == 0
    serving.assert_nothing_left(serving.process.pid)


@pytest.mark.triton
def test_the_gateway_beside_triton_has_keys_origins_and_tls(
    start: Callable[..., Serving], recordings: list[Recording], tmp_path: Path
) -> None:
    """As `moulin gateway` has; and keys that are read anew."""
    keys = tmp_path / "keys"
    keys.write_text("app secret\nmonitor watching\n")
    pair = ("--tls-certificate", str(TLS / "certificate.pem"), "--tls-key", str(TLS / "key.pem"))
    serving = start(
        *SERVE, *pair, "--api-keys", str(keys), "--metrics-key", "monitor", "--allow-origin", "https://app.example"
    )
    serving.wait_ready()
    url = f"https://{serving.gateway_address}".replace("127.0.0.1", "localhost")
    assert f"  page     https://{serving.gateway_address}/\n" in serving.err
    trusted = ssl.create_default_context(cafile=TLS / "certificate.pem")

    def answer(key: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}", "origin": "https://app.example"}
        form: dict[str, Any] = {"files": {"file": recordings[0].file.read_bytes()}, "data": {"model": "whisper-1"}}
        return httpx.post(f"{url}/v1/audio/transcriptions", **form, headers=headers, verify=trusted, timeout=60)

    found = answer("secret")
    assert found.status_code == 200
    assert found.headers["access-control-allow-origin"] == "https://app.example"
    assert eventually(lambda: "key=app" in serving.err)
    keys.write_text("app changed\nmonitor watching\n")
    assert eventually(lambda: answer("changed").status_code == 200)
    assert answer("secret").status_code == 401
    for key, status in [("changed", 403), ("watching", 200)]:
        metrics = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {key}"}, verify=trusted)
        assert metrics.status_code == status
    assert 'moulin_gateway_key_audio_seconds_total{key="app",kind="recording"}' in metrics.text
    assert 'moulin_process_up{process="gateway"} 1.0' in metrics.text


@pytest.mark.triton
def test_a_gateway_that_dies_is_started_again(start: Callable[..., Serving], recordings: list[Recording]) -> None:
    serving = start(*SERVE, "--name", "english")
    serving.wait_ready()
    (gateway,) = [pid for pid in serving.family if b"\0gateway\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(gateway, signal.SIGKILL)
    assert eventually(lambda: "The gateway ended with exit code -9; it is started again" in serving.err)
    assert eventually(lambda: answers(serving.gateway_address, "/readyz"))
    assert _transcribed_by_gateway(serving, recordings[0]) != ""
    serving.family = serving.find_family()
    serving.process.send_signal(signal.SIGTERM)
    assert serving.process.wait(300) == 0
    serving.assert_nothing_left(serving.process.pid)


def _gateway_pid(serving: Serving) -> int:
    (gateway,) = [pid for pid in serving.find_family() if b"\0gateway\0" in _arguments(pid)]
    return gateway


def _arguments(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.triton
def test_a_gateway_whose_port_is_taken_comes_back_later(
    start: Callable[..., Serving], recordings: list[Recording]
) -> None:
    """And Triton does not go with it."""
    serving = start(*SERVE, "--name", "english")
    serving.wait_ready()
    with Client(serving.grpc_url, model="english") as client:
        host, _, port = serving.gateway_address.partition(":")
        # The listener, which shares the port as soon as the gateway is gone, accepts nothing.
        os.kill(_gateway_pid(serving), signal.SIGKILL)
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            assert eventually(lambda: _bound(taken, host, int(port)))
            taken.listen()
            assert eventually(lambda: "Expected the gateway to start, got exit code" in serving.err)
            assert client.transcribe(recordings[0].file).text != ""
        assert eventually(lambda: answers(serving.gateway_address, "/readyz"))
        assert _transcribed_by_gateway(serving, recordings[0]) != ""
        assert client.transcribe(recordings[0].file).text != ""


def _bound(taken: socket.socket, host: str, port: int) -> bool:
    try:
        taken.bind((host, port))
    except OSError:
        return False
    return True


@pytest.mark.triton
def test_a_stopped_gateway_is_started_again_and_says_so(start: Callable[..., Serving]) -> None:
    serving = start(*SERVE)
    serving.wait_ready()
    os.kill(_gateway_pid(serving), signal.SIGSTOP)
    assert eventually(lambda: "The gateway is stopped (SIGSTOP); it is started again" in serving.err)
    assert eventually(lambda: answers(serving.gateway_address, "/readyz"))

    def processes() -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = httpx.get(f"http://{serving.gateway_address}/readyz").json()["processes"]
        return found

    # It answers a moment before its supervisor, which asks ten times a second, knows.
    assert eventually(lambda: processes()["gateway"]["state"] == "running")
    assert processes() == {
        "tritonserver": {"state": "running", "restarts": 0, "last_cause": None},
        "gateway": {"state": "running", "restarts": 1, "last_cause": "stopped"},
    }
    metrics = httpx.get(f"http://{serving.gateway_address}/metrics").text
    assert 'moulin_restarts_total{cause="stopped",process="gateway"} 1.0' in metrics
    assert 'moulin_restarts_total{cause="hung",process="tritonserver"} 0.0' in metrics
    assert 'moulin_process_up{process="tritonserver"} 1.0' in metrics


@pytest.mark.triton
def test_readyz_says_what_is_down(start: Callable[..., Serving]) -> None:
    serving = start(*SERVE)
    serving.wait_ready()
    (stub,) = [pid for pid in serving.family if b"\0transducer_0_0\0" in _arguments(pid)]
    os.kill(stub, signal.SIGKILL)

    def _down() -> bool:
        answer = httpx.get(f"http://{serving.gateway_address}/readyz")
        return answer.status_code == 503 and "tritonserver is restarting (instance_ended)" in answer.text

    assert eventually(_down)
    assert eventually(lambda: answers(serving.gateway_address, "/readyz"))
    state = httpx.get(f"http://{serving.gateway_address}/readyz").json()["processes"]["tritonserver"]
    assert state == {"state": "running", "restarts": 1, "last_cause": "instance_ended"}


def test_other_machines_need_a_key() -> None:
    done = moulin("serve", *FREE_PORTS, "--host", "0.0.0.0").expect(1)
    assert done.undated_err.startswith("moulin: Expected API keys for a gateway that listens on 0.0.0.0")
    assert "--allow-anonymous" in done.undated_err


def test_a_gateway_port_in_use() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = moulin("serve", *FREE_PORTS, f"--gateway-port={port}").expect(1)
    assert done.undated_err.startswith(f"moulin: Expected port {port} on 127.0.0.1 to be free for the gateway, got: ")


@pytest.mark.parametrize("flag", ["--http-port", "--grpc-port", "--metrics-port"])
def test_a_port_in_use(flag: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        others = [option for option in FREE_PORTS if not option.startswith(flag)]
        done = moulin("serve", *others, f"{flag}={port}").expect(1)
    message, hint = done.undated_err.splitlines()
    assert message.startswith(f"moulin: Expected port {port} on 127.0.0.1 to be free")
    assert hint == f"  hint: stop what listens there, or choose another port with {flag} (0 takes a free one)"
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [BUNDLES / "lstm-streaming", BUNDLES / "zipformer-streaming"],
            "moulin: Expected one offline and one streaming model at most, got two streaming ones: ",
        ),
        ([BUNDLES / "conformer-offline", "--streaming-name", "x"], "moulin: --streaming-name is given, but there is"),
        (["--name", "x", "--streaming-name", "x"], "moulin: Expected two different names, got 'x' twice\n"),
        (["--max-streams", "0"], "moulin: Expected max-streams of 1 to 1e6, got 0\n"),
        (["--idle-timeout-sec", "0"], "moulin: Expected idle-timeout-sec above 0 and below 1e6, got 0\n"),
        (["/no/such/model"], "moulin: There is no model at /no/such/model\n  hint: pass a folder with encoder*.onnx"),
        (
            ["--device", "gpu"],
            "moulin: Expected a device of cpu, cuda or cuda:N, a list such as cuda:0,cuda:1, or cuda:all, got 'gpu'\n",
        ),
        (
            [BUNDLES / "conformer-offline", "--engine", "tensorrt"],
            "moulin: Expected a GPU cuda, ",
        ),
        (["--name", "a/b"], "moulin: Expected a model name of letters, digits, '_', '-' and '.', got 'a/b'\n"),
        (["--max-batch", "0"], "moulin: Expected max-batch of 1 to 1e6, got 0\n"),
        (["--beam", "0"], "moulin: Expected a beam of 1 to "),
    ],
)
def test_what_cannot_be_served(arguments: list[str], message: str) -> None:
    done = moulin("serve", *FREE_PORTS, *arguments).expect(1)
    assert done.undated_err.startswith(message)
    assert len(done.undated_err.splitlines()) <= 2
    assert done.out == ""


def test_a_port_that_does_not_exist() -> None:
    done = moulin("serve", "--grpc-port", "99999").expect(1)
    assert done.undated_err == "moulin: Expected grpc-port of 0 to 65535, got 99999\n"
