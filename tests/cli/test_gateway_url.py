"""`moulin transcribe` and `moulin stream` through a gateway: keys, TLS, options and what cannot be said over REST."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from moulin.launch.server import TritonServer
from tests.conftest import Recording
from tests.gateway.running_gateway import running_gateway

from .command import MOULIN, Finished, eventually, moulin, moulin_here

TLS = Path(__file__).parents[1] / "data" / "tls"
NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def gateway(server: TritonServer) -> Iterator[str]:
    with running_gateway(server.grpc_url, api_keys=("app secret",), stream_idle_sec=60.0) as address:
        yield f"http://{address}"


def same(verb: str, gateway: str, server: TritonServer, *arguments: object) -> tuple[Finished, Finished]:
    key = {"MOULIN_API_KEY": "secret"}
    with ThreadPoolExecutor(1) as beside:
        through_it = beside.submit(moulin, verb, *arguments, "--url", gateway, environ=key)
        without_it = moulin_here(verb, *arguments, "--url", server.grpc_url)
        return through_it.result(), without_it


@pytest.mark.triton
@pytest.mark.parametrize("verb", ["transcribe", "stream"])
def test_keys(gateway: str, recordings: list[Recording], tmp_path: Path, verb: str) -> None:
    """In the environment and in a file they are not seen by others."""
    file = tmp_path / "key"
    file.write_text("secret\n")
    clip = recordings[0].file
    for given, environ in [
        ((), {"MOULIN_API_KEY": "secret"}),
        (("--api-key", f"@{file}"), {"MOULIN_API_KEY": "wrong"}),
        (("--api-key", "secret"), {}),
    ]:
        assert moulin(verb, clip, "--url", f"{gateway}/v1/", *given, environ=environ).expect(0).out
    for given, message in [
        ((), "Expected an API key, got none"),
        (("--api-key", "wrong"), "not one of this gateway's"),
    ]:
        done = moulin(verb, clip, "--url", gateway, *given).expect(1)
        assert message in done.err
        assert "--api-key" in done.err or given


@pytest.mark.triton
def test_recordings_say_the_same_as_without_a_gateway(
    gateway: str, server: TritonServer, recordings: list[Recording], tmp_path: Path
) -> None:
    """Many at once, channels by themselves, a long one with a warning, hotwords."""
    sides = [recording.waveform[:60_000] for recording in recordings[:2]]
    soundfile.write(tmp_path / "both.flac", np.stack(sides, axis=1), 16_000)
    silence = np.zeros(32_000, np.float32)
    parts = [part for recording in recordings[:6] for part in (recording.waveform, silence)]
    soundfile.write(tmp_path / "long.wav", np.concatenate(parts), 16_000, subtype="PCM_16")
    cut = tmp_path / "cut.wav"
    cut.write_bytes((tmp_path / "long.wav").read_bytes()[:-100_000])
    files = [recording.file for recording in recordings[:4]]
    for arguments in (
        (*files, tmp_path / "long.wav", cut, "--format", "json", "--jobs", "3"),
        (tmp_path / "both.flac", "--channels", "each", "--format", "srt"),
        (tmp_path / "both.flac", "--channels", "right", "--format", "json"),
        (files[0], "--hotwords", "ONE,FIVE FIVE", "--hotwords-score", "2", "--format", "json"),
        (files[0], "--method", "modified_beam_search", "--beam", "3", "--format", "json"),
    ):
        over_rest, over_grpc = same("transcribe", gateway, server, *arguments)
        assert over_rest.expect(0).out == over_grpc.expect(0).out
        assert _without_speed(over_rest.err) == _without_speed(over_grpc.err)
    assert "cut.wav" in same("transcribe", gateway, server, cut)[0].err


def _without_speed(err: str) -> str:
    return re.sub(r"^(\d+ files, [^,]+) in .*real time", r"\1", err, flags=re.MULTILINE)


@pytest.mark.triton
def test_streams_say_the_same_as_without_a_gateway(
    gateway: str, server: TritonServer, recordings: list[Recording]
) -> None:
    clip = min(recordings, key=lambda recording: len(recording.waveform)).file
    for arguments in ((clip,), (clip, "--no-endpoint"), (clip, "--realtime")):
        over_socket, over_grpc = same("stream", gateway, server, *arguments)
        assert over_socket.expect(0) == over_grpc.expect(0)
    last = [json.loads(done.out.splitlines()[-1]) for done in same("stream", gateway, server, clip, "--format", "json")]
    assert last[0] == last[1]


@pytest.mark.triton
def test_tls(server: TritonServer, recordings: list[Recording]) -> None:
    pair: dict[str, Any] = {"tls_certificate": TLS / "certificate.pem", "tls_key": TLS / "key.pem"}
    trusting = {"SSL_CERT_FILE": str(TLS / "certificate.pem")}
    with running_gateway(server.grpc_url, **pair) as address:
        url = f"https://localhost:{address.rpartition(':')[2]}"
        for verb in ("transcribe", "stream"):
            assert moulin(verb, recordings[0].file, "--url", url, environ=trusting).expect(0).out
            done = moulin(verb, recordings[0].file, "--url", url).expect(1)
            assert f"No gateway answers at {url}: " in done.err
            assert "certificate" in done.err
            assert "hint: SSL_CERT_FILE names" in done.err
            plain = f"http://localhost:{address.rpartition(':')[2]}"
            done = moulin(verb, recordings[0].file, "--url", plain).expect(1)
            assert "hint: a server with TLS is at https://" in done.err
    with running_gateway(server.grpc_url) as address:
        for verb in ("transcribe", "stream"):
            done = moulin(verb, recordings[0].file, "--url", f"https://{address}").expect(1)
            assert "hint: a server without TLS is at http://" in done.err


@pytest.mark.triton
def test_a_key_is_not_seen_by_others(gateway: str, recordings: list[Recording]) -> None:
    """Of a key in the environment `ps` shows nothing."""
    process = subprocess.Popen(
        [MOULIN, "stream", str(recordings[0].file), "--realtime", "--url", gateway],
        env={"PATH": "/usr/bin:/bin", "MOULIN_API_KEY": "secret"},
        stdout=subprocess.DEVNULL,
    )
    assert eventually(lambda: b"stream" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
    assert b"secret" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert process.wait(60) == 0


@pytest.mark.triton
def test_what_the_gateway_refuses(gateway: str, recordings: list[Recording], tmp_path: Path) -> None:
    key = {"MOULIN_API_KEY": "secret"}
    bad = tmp_path / "bad.wav"
    bad.write_text("this is not audio")
    done = moulin("transcribe", bad, recordings[0].file, "--url", gateway, environ=key).expect(1)
    assert done.out == f"{recordings[0].file}\t{recordings[0].text}\n"
    assert done.err.startswith(f"{bad} cannot be decoded as audio")
    for verb in ("transcribe", "stream"):
        done = moulin(verb, recordings[0].file, "--url", gateway, "--name", "nothing", environ=key).expect(1)
        assert "There is no model 'nothing'" in done.err
        assert "hint: the models for" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", NOBODY], f"No gateway answers at {NOBODY}: "),
        (["--url", "https://"], "Expected a gateway's URL, got 'https://'"),
        (["--url", "http://h:1/v1?key=x"], "Expected a gateway's URL"),
        (["--url", "http://h:99999"], "Expected a gateway's URL"),
        (["--url", "http://user@h"], "Expected a gateway's URL"),
        (["--url", NOBODY, "--api-key", "ключ"], "Expected an API key of printable ASCII"),
        (["--url", NOBODY, "--api-key", "@/nowhere"], "Cannot read the API key in /nowhere: No such file"),
        (["--url", NOBODY, "--api-key", "@SEVERAL"], "Expected one API key in .*, got several lines"),
        (["--url", "ftp://h:1", "--api-key", "k"], "Expected --url HOST:PORT of Triton's gRPC, or a gateway's http://"),
        (["--url", "wss://h:1/v1"], "Expected --url HOST:PORT of Triton's gRPC, or a gateway's http://"),
        (["--url", "h:1", "--api-key", "k"], "Expected --api-key with the URL of a gateway"),
        (["--url", NOBODY, "--hotwords", "one :3"], "Expected hotwords without scores of their own"),
        (["--url", NOBODY, "--blank-skip", "0.9"], "Expected options that a gateway's recordings have, got blank_skip"),
    ],
)
def test_what_is_refused_here(recordings: list[Recording], tmp_path: Path, arguments: list[str], message: str) -> None:
    several = tmp_path / "keys"
    several.write_text("one\ntwo\n")
    hotwords = tmp_path / "hotwords"
    hotwords.write_text("one :3\n")
    replaced = [each.replace("@SEVERAL", f"@{several}").replace("one :3", str(hotwords)) for each in arguments]
    done = moulin_here("transcribe", recordings[0].file, *replaced).expect(1)

    assert re.search(message, done.err), done.err
    assert "ключ" not in done.err
