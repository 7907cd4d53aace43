"""`moulin serve --repository DIR`, and the command that `moulin repo build` prints for a bare tritonserver."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moulin.client import Client
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.launch.answers import answers
from moulin.launch.ports import claim_ports
from moulin.triton_repo.built_models import built_models
from tests.bundles import BUNDLES
from tests.conftest import Recording

from .command import MOULIN, TIMEOUT_SEC, Serving, eventually, moulin, moulin_here

FREE_PORTS = ["--http-port=0", "--grpc-port=0", "--metrics-port=0", "--gateway-port=0"]


@contextmanager
def serving(folder: Path, *command: object) -> Iterator[Serving]:
    started = Serving.start([str(part) for part in command], folder)
    try:
        yield started
    finally:
        started.kill()


@pytest.mark.triton
@pytest.mark.parametrize("layout", ["fused", "ensemble"])
def test_a_repository_of_both_kinds(layout: str, recordings: list[Recording], tmp_path: Path) -> None:
    to = tmp_path / "a repository"  # Triton's python stubs take no space: `serve` has a way around, and a hint says it
    built = moulin("repo", "build", DEMO_MODEL, DEMO_STREAMING_MODEL, "--to", to, "--layout", layout).expect(0)
    assert "a folder without a space in its path" in built.err
    offline, streaming = built_models(to)
    assert (offline.name, offline.streaming, offline.device) == ("transducer", False, "cpu")
    assert (streaming.name, streaming.streaming) == ("transducer_streaming", True)
    with serving(tmp_path / "serving", MOULIN, "serve", "--repository", to, *FREE_PORTS) as running:
        running.wait_ready()
        assert "as transducer on cpu" in running.err
        assert "as transducer_streaming on cpu" in running.err
        assert f"moulin stream speech.wav --url {running.grpc_url}" in running.err
        with Client(running.grpc_url) as client:
            assert client.transcribe(recordings[0].file).text == recordings[0].text
        assert answers(running.gateway_address, "/healthz")
        owner = running.moulin_pid()
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(TIMEOUT_SEC) == 0
        assert eventually(lambda: not running.find_family())
        assert owner == running.process.pid
    assert (to / "transducer" / "config.pbtxt").is_file()


@pytest.mark.triton
def test_a_second_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "serving", MOULIN, "serve", BUNDLES / "conformer-offline", *FREE_PORTS) as running:
        running.wait_ready()
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(TIMEOUT_SEC) in (0, 130)
        running.assert_nothing_left(running.process.pid)


@pytest.mark.triton
def test_the_printed_command_works_as_printed(recordings: list[Recording], tmp_path: Path) -> None:
    to = tmp_path / "repository"
    done = moulin("repo", "build", DEMO_MODEL, "--to", to).expect(0)
    command = done.err.rstrip("\n").splitlines()[-1].strip()
    ports = claim_ports("127.0.0.1", {"--http-port": 0, "--grpc-port": 0, "--metrics-port": 0})
    added = " ".join(f"{flag}={port}" for flag, port in ports.items())
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            ["sh", "-c", f"{command} {added}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")},
        )
    try:
        ready = f"127.0.0.1:{ports['--http-port']}"
        assert eventually(lambda: answers(ready, "/v2/health/ready") or server.poll() is not None, TIMEOUT_SEC)
        assert server.poll() is None, (tmp_path / "log").read_text()
        with Client(f"127.0.0.1:{ports['--grpc-port']}") as client:
            assert client.transcribe(recordings[0].file).text == recordings[0].text
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(TIMEOUT_SEC)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([DEMO_MODEL], "got the model"),
        (["--engine", "torch"], "got --engine too"),
        (["--device", "cpu"], "got --device too"),
        (["--precision", "fp16"], "got --precision too"),
        (["--max-batch", "3"], "got --max-batch too"),
        (["--name", "x"], "got --name too"),
        (["--no-endpoint"], "got --endpoint too"),
        (["--streaming"], "got --streaming too"),
        (["--layout", "fused"], "got --layout too"),
    ],
)
def test_what_was_decided_before_is_refused(arguments: list[object], message: str, tmp_path: Path) -> None:
    done = moulin_here("serve", "--repository", tmp_path, "--no-gateway", *FREE_PORTS[:3], *arguments).expect(1)
    assert message in done.undated_err
    assert "moulin repo build" in done.undated_err


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "There is no repository at"),
        ({}, "is empty"),
        ({"notes.txt": "hello"}, "holds no Triton models: expected NAME/config.pbtxt"),
        ({"other/config.pbtxt": 'name: "other" backend: "python"'}, "none that moulin wrote"),
        ({"other/config.pbtxt": "{]"}, "is no configuration of a Triton model"),
    ],
)
def test_folders_that_are_no_repository(files: dict[str, str] | None, message: str, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for name, content in (files or {}).items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(content)
    if files == {}:
        repository.mkdir()
    done = moulin_here("serve", "--repository", repository, "--no-gateway", *FREE_PORTS[:3]).expect(1)
    assert message in done.undated_err


def test_a_repository_of_an_earlier_moulin_is_refused_with_what_to_do(tmp_path: Path) -> None:
    moulin_here("repo", "build", BUNDLES / "conformer-offline", "--to", tmp_path).expect(0)
    config = tmp_path / "transducer" / "config.pbtxt"
    config.write_text(config.read_text().replace('key: "service"', 'key: "engine"'))
    done = moulin_here("serve", "--repository", tmp_path, "--no-gateway", *FREE_PORTS[:3]).expect(1)
    assert done.undated_err == (
        f"moulin: Expected {config} to have the parameter 'service', got alternatives, bundle, created, "
        "engine, hotwords, max_utterance_sec, precision: an earlier moulin wrote it, or none\n  hint: build it anew "
        "with `moulin repo build`\n"
    )
