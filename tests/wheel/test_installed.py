"""The smaller suite: moulin as it is installed from its wheel, with the newest dependencies, as a person uses it.

Run by scripts/test-wheel.sh in a fresh environment of any supported Python; nothing here imports the source tree.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
import pytest

import moulin
from moulin.audio.decode import read_audio
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.wer import digits_spelled_alike

MOULIN = Path(sys.executable).with_name("moulin")
PATIENCE_SEC = 600
"""The machine may be busy, and the first start makes an environment for Triton."""
CLIP = demo_clips()[0]
WORDS = digits_spelled_alike(CLIP.text).split()


def run(*arguments: object, status: int = 0, **environ: str) -> str:
    done = subprocess.run(
        [MOULIN, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SEC,
        check=False,
        env=os.environ | environ,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout if status == 0 else done.stderr


def expect_speech(text: str) -> None:
    """At most two words of the recording are wrong: it goes through lossy codecs, and is short of no model."""
    heard = digits_spelled_alike(text).split()
    table = list(range(len(WORDS) + 1))
    for row, word in enumerate(heard, 1):
        before, table[0] = table[:], row
        for column, said in enumerate(WORDS, 1):
            table[column] = min(before[column] + 1, table[column - 1] + 1, before[column - 1] + (word != said))
    assert table[-1] <= 2, (heard, WORDS)


def encode(to: Path, codec: str, rate: int) -> Path:
    """The recording in another codec and container, by PyAV."""
    samples = (read_audio(CLIP.audio) * 32767).astype(np.int16)
    with av.open(str(to), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        resampler = av.AudioResampler(
            stream.codec_context.format, "mono", rate, stream.codec_context.frame_size or 1024
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return to


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("recordings")
    broken = folder / "broken.m4a"
    made = {
        "wav": encode(folder / "speech.wav", "pcm_s16le", 16000),
        "m4a": encode(folder / "speech.m4a", "aac", 48000),
        "webm": encode(folder / "speech.webm", "libopus", 48000),
        "broken": broken,
    }
    broken.write_bytes(made["m4a"].read_bytes()[:2000])
    return made


def test_it_is_the_installed_one() -> None:
    assert "site-packages" in moulin.__file__
    assert run("--version").split()[-1] == moulin.__version__


@pytest.mark.parametrize("kind", ["wav", "m4a", "webm"])
def test_transcribe_in_process(recordings: dict[str, Path], kind: str) -> None:
    expect_speech(run("transcribe", recordings[kind], "--model", DEMO_MODEL))


def test_a_broken_file_is_named(recordings: dict[str, Path]) -> None:
    assert "broken.m4a" in run("transcribe", recordings["broken"], "--model", DEMO_MODEL, status=1)


def test_stream_in_process(recordings: dict[str, Path]) -> None:
    lines = run("stream", recordings["wav"], "--model", DEMO_STREAMING_MODEL, "--format", "json").splitlines()
    expect_speech(json.loads(lines[-1])["text"])


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, str]]:
    """The addresses of `moulin serve`, by what it calls them."""
    ports = [word for kind in ("http", "grpc", "metrics", "gateway") for word in (f"--{kind}-port", "0")]
    process = subprocess.Popen(
        [MOULIN, "serve", *ports, "--quiet"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        yield _addresses(process.stderr)
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(PATIENCE_SEC) == 0, rest
        process.stderr.close()


def _addresses(log: IO[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    deadline = time.monotonic() + PATIENCE_SEC
    for line in log:
        print(line, end="")
        date, _, text = line.partition(" ")
        words = text.split()
        if len(words) == 2 and text.startswith("  "):
            found[words[0]] = words[1]
        assert date[:4].isdecimal(), f"{line!r} has no date"
        assert "runs as it was exported" not in line  # models run as they do in development
        if "Ctrl-C stops it" in line:
            return found
        assert time.monotonic() < deadline
    raise AssertionError("moulin serve ended")


@pytest.mark.parametrize("kind", ["wav", "m4a", "webm"])
def test_transcribe_on_the_server(served: dict[str, str], recordings: dict[str, Path], kind: str) -> None:
    expect_speech(run("transcribe", recordings[kind], "--url", served["gRPC"]))


def test_stream_on_the_server(served: dict[str, str], recordings: dict[str, Path]) -> None:
    expect_speech(run("stream", recordings["wav"], "--url", served["gRPC"]))


@pytest.mark.parametrize(("kind", "status"), [("webm", 200), ("m4a", 200), ("broken", 400)])
def test_the_gateway(served: dict[str, str], recordings: dict[str, Path], kind: str, status: int) -> None:
    parts = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="'
        + recordings[kind].name.encode()
        + b'"\r\n\r\n'
        + recordings[kind].read_bytes()
        + b"\r\n--b--\r\n"
    )
    address = served["OpenAI"] + "/audio/transcriptions"
    request = urllib.request.Request(address, parts, {"Content-Type": "multipart/form-data; boundary=b"})
    if status != 200:
        with pytest.raises(urllib.error.HTTPError, match=str(status)) as caught:
            urllib.request.urlopen(request, timeout=PATIENCE_SEC)
        caught.value.close()
        return
    with urllib.request.urlopen(request, timeout=PATIENCE_SEC) as answer:
        expect_speech(json.load(answer)["text"])


def test_doctor_after_the_first_start(served: dict[str, str]) -> None:
    assert served
    ports = [word for kind in ("http", "grpc", "metrics", "gateway") for word in (f"--{kind}-port", "0")]
    found = {check["name"]: check for check in map(json.loads, run("doctor", "--json", *ports).splitlines())}
    assert "numpy 1." in found["serving environment"]["detail"]


def test_numpy_is_what_it_was() -> None:
    """scripts/test-wheel.sh says which numpy was there before moulin came."""
    before = os.environ.get("NUMPY_BEFORE")
    assert before in (None, "", np.__version__)


def test_fetch_from_a_hub(tmp_path: Path) -> None:
    file = Path(__file__).parents[1] / "fetch" / "site.py"
    spec = importlib.util.spec_from_file_location("hub_site", file)
    assert spec is not None
    assert spec.loader is not None
    hub = importlib.util.module_from_spec(spec)
    sys.modules["hub_site"] = hub
    spec.loader.exec_module(hub)
    with hub.running(hub.Site()) as site:
        hub.publish(site, hub.files_of(DEMO_MODEL))
        environ = {"HF_ENDPOINT": site.url, "HF_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        folder = run("fetch", f"hf://{hub.REPOSITORY}", **environ).strip()
    expect_speech(run("transcribe", CLIP.audio, "--model", folder))
