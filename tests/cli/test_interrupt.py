"""Ctrl-C as a terminal sends it, to real commands that would run for minutes."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.launch.server import TritonServer
from moulin.launch.vital_signs import family, family_activity
from tests.bundles import BUNDLES
from tests.conftest import Recording

from .command import MOULIN, TIMEOUT_SEC, eventually

SOON_SEC = 40.0
"""A busy machine's second; what is interrupted here would go on for a minute, and most of it for minutes."""


@contextmanager
def running(*command: object, environ: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environ or {})},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def opened(process: subprocess.Popen[bytes], file: Path) -> bool:
    """Wait until the command, or a process below it, has opened `file`."""

    def is_open() -> bool:
        for pid in family(process.pid):
            for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
                with suppress(OSError):
                    if descriptor.readlink() == file:
                        return True
        return process.poll() is not None

    return eventually(is_open) and process.poll() is None


def interrupted(process: subprocess.Popen[bytes], *, after_sec: float, times: int = 1) -> tuple[str, str, float]:
    """What it printed, and how long it took from the (last) Ctrl-C to its end."""
    time.sleep(after_sec)
    assert process.poll() is None, process.communicate()
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        pressed = time.monotonic()
        time.sleep(0.1 if times > 1 else 0)
    out, err = process.communicate(timeout=TIMEOUT_SEC)
    return out.decode(), err.decode(), time.monotonic() - pressed


@pytest.fixture(scope="module")
def long_wav(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty minutes: a minute of work."""
    file = tmp_path_factory.mktemp("long") / "long.wav"
    block = np.concatenate([recording.waveform for recording in recordings])
    with soundfile.SoundFile(file, "w", 16000, 1) as sound:
        for _ in range(2400 * 16000 // len(block)):
            sound.write(block)
    return file


@pytest.mark.parametrize("where", ["model", pytest.param("url", marks=pytest.mark.triton)])
def test_transcribe(where: str, long_wav: Path, recordings: list[Recording], request: pytest.FixtureRequest) -> None:
    if where == "model":
        place = ["--model", str(DEMO_MODEL)]
    else:
        server: TritonServer = request.getfixturevalue("server")
        place = ["--url", server.grpc_url]
    with running(MOULIN, "transcribe", *place, recordings[0].file, long_wav, "--format", "text") as process:
        assert opened(process, long_wav), process.communicate()
        out, err, took_sec = interrupted(process, after_sec=1)
    assert process.returncode == 130
    assert took_sec < SOON_SEC
    assert err == "Interrupted.\n"
    assert out in ("", f"{recordings[0].file}\t{recordings[0].text}\n")


def test_stream(long_wav: Path) -> None:
    with running(MOULIN, "stream", "--model", DEMO_STREAMING_MODEL, long_wav) as process:
        assert opened(process, long_wav), process.communicate()
        _, err, took_sec = interrupted(process, after_sec=1)
    assert (process.returncode, err) == (130, "Interrupted.\n")
    assert took_sec < SOON_SEC


def test_bench_keeps_what_it_has(tmp_path: Path) -> None:
    report = tmp_path / "result.json"
    command = ["bench", "accuracy", "--model", DEMO_MODEL, "--workers", "1", "--to", report]
    slow = tmp_path / "slow.jsonl"
    from moulin.evaluate.manifest import demo_clips

    line = "\n".join(f'{{"audio": "{clip.audio}", "text": "{clip.text}"}}' for clip in demo_clips())
    slow.write_text("\n".join([line] * 200))
    with running(MOULIN, *command, "--data", slow) as process:
        assert eventually(lambda: family_activity(process.pid)[0] > 8 or process.poll() is not None)  # it transcribes
        _, _, took_sec = interrupted(process, after_sec=0)
    assert process.returncode == 130
    assert took_sec < SOON_SEC
    assert '"interrupted": true' in report.read_text()


@pytest.mark.needs("torch")
def test_export_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    to = tmp_path / "exported"
    with running(MOULIN, "export", BUNDLES / "zipformer-offline" / "epoch-1.pt", "--to", to) as process:
        assert eventually(lambda: any(to.glob(".*.part")) or process.poll() is not None, TIMEOUT_SEC)
        _, err, took_sec = interrupted(process, after_sec=0)
    assert process.returncode == 130
    assert err.endswith("Interrupted.\n")
    assert took_sec < SOON_SEC
    assert list(to.rglob("*")) == []


class _Slow(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 30))
        self.send_header("ETag", '"one"')
        self.end_headers()
        try:
            self.wfile.write(bytes(1 << 19))
            time.sleep(TIMEOUT_SEC)
        except OSError:
            pass

    def log_message(self, *_arguments: object) -> None: ...


def test_fetch_can_go_on_later(tmp_path: Path) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}/model.tar.bz2"
        with running(MOULIN, "fetch", url, environ={"XDG_CACHE_HOME": str(tmp_path)}) as process:
            assert eventually(lambda: bool(list(tmp_path.rglob("*.part"))), TIMEOUT_SEC)
            _, err, took_sec = interrupted(process, after_sec=2)
        assert process.returncode == 130
        assert err.endswith("Interrupted.\n")
        assert took_sec < SOON_SEC
        (part,) = tmp_path.rglob("*.part")
        assert part.stat().st_size > 0
    finally:
        server.shutdown()
        server.server_close()


HANGING = textwrap.dedent("""
    import ctypes, sys, threading, time
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path
    import moulin.cli.app as app
    from moulin.cli.interrupt import interrupts, unfinished

    def _native():
        ctypes.CDLL(None).usleep(ctypes.c_uint(90_000_000))  # without the interpreter lock, without an end

    def _ignoring(first=""):
        while True:
            try:
                if first:
                    said, first = first, ""
                    print(said, flush=True)
                _native() if how == "native" else time.sleep(90)
            except KeyboardInterrupt:
                pass

    def _server():
        interrupts.allow(None)
        killed = threading.Event()

        def _kill():
            killed.set()
            time.sleep(0.5)  # the command comes to its end meanwhile

        with interrupts.at_the_end(_kill):
            print("here", flush=True)
            while not killed.is_set():
                try:
                    killed.wait()
                except KeyboardInterrupt:
                    pass

    def _command():
        if how == "server":
            _server()
            return
        if how == "patient":
            interrupts.allow(None)
        part = Path(sys.argv[2])
        part.write_text("half")
        with unfinished(part):
            if how == "patient":
                _ignoring("here")
            print("here", flush=True)
            if how == "executor":
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(_native).result()
            _ignoring()

    how = sys.argv[1]
    app.app = _command
    app.main()
""")


@contextmanager
def hanging(how: str, part: Path) -> Iterator[subprocess.Popen[bytes]]:
    with running(sys.executable, "-c", HANGING, how, part) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        yield process


@pytest.mark.parametrize("how", ["native", "executor", "stubborn"])
@pytest.mark.parametrize("times", [1, 2])
def test_what_does_not_end_by_itself_is_ended(how: str, times: int, tmp_path: Path) -> None:
    part = tmp_path / "result.part"
    with hanging(how, part) as process:
        _, err, took_sec = interrupted(process, after_sec=0.2, times=times)
    assert process.returncode == 130
    assert err == "Interrupted.\n"
    assert took_sec < SOON_SEC
    assert not part.exists()


def test_a_patient_command_is_ended_by_the_second(tmp_path: Path) -> None:
    with hanging("patient", tmp_path / "part") as process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        _, _, took_sec = interrupted(process, after_sec=0)
    assert process.returncode == 130
    assert took_sec < SOON_SEC


def test_the_status_is_its_own_where_the_clean_up_lets_the_command_end(tmp_path: Path) -> None:
    with hanging("server", tmp_path / "part") as process:
        _, err, _ = interrupted(process, after_sec=0.2, times=2)
    assert process.returncode == 130
    assert err == "Interrupted.\n"


def test_where_the_shell_ignores_it_nothing_happens(tmp_path: Path) -> None:
    command = f"trap '' INT; exec {sys.executable} -c \"$0\" stubborn {tmp_path / 'part'}"
    with running("sh", "-c", command, HANGING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.5)
