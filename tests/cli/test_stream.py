"""`moulin stream` as a process, on a model of random weights in this process: what it prints where, and how it ends."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
import tty
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import soundfile

from moulin.audio.decode import read_audio
from moulin.demo.files import DEMO_STREAMING_MODEL
from moulin.live_transcript import LiveTranscript, StreamUpdate
from moulin.stream_audio import cut, stream_in_process
from tests.audio.media import wav
from tests.bundles import BUNDLES
from tests.conftest import Recording

from .command import MOULIN, TIMEOUT_SEC, Finished, moulin, moulin_here

MODEL = BUNDLES / "zipformer2-streaming"

# A module that a `moulin` finds as sounddevice: the first two seconds of a file, then silence.
FAKE_SOUNDDEVICE = """
import os, threading, numpy as np, soundfile

class PortAudioError(Exception): ...

def query_devices(kind): return {"default_samplerate": 16000.0}
def check_input_settings(**settings): ...

class InputStream:
    def __init__(self, blocksize, callback, **settings):
        self.blocksize, self.callback, self.closing = blocksize, callback, threading.Event()
    def start(self):
        self.thread = threading.Thread(target=self._speak, daemon=True)
        self.thread.start()
    def _speak(self):
        speech, _ = soundfile.read(os.environ["SPEECH"], dtype="float32", frames=32000)
        while not self.closing.wait(0.01):
            block = np.zeros((self.blocksize, 1), np.float32)
            block[: len(speech[: self.blocksize]), 0] = speech[: self.blocksize]
            speech = speech[self.blocksize :]
            self.callback(block, self.blocksize, None, "")
    def close(self):
        self.closing.set()
        self.thread.join()
"""


@pytest.fixture(scope="module")
def clip(recordings: list[Recording]) -> Path:
    return recordings[0].file


@pytest.fixture(scope="module")
def updates(clip: Path) -> list[StreamUpdate]:
    """What the engine hears in the clip, in pieces of the length that is the default."""
    return list(stream_in_process(cut(read_audio(clip), 320), MODEL, options={}))


@pytest.fixture(scope="module")
def said(updates: list[StreamUpdate]) -> LiveTranscript:
    live = LiveTranscript()
    for update in updates:
        live.apply(update)
    assert len(live.final) >= 1
    return live


def stream(*arguments: object, stdin: bytes | None = None) -> Finished:
    if stdin is None:
        return moulin_here("stream", *arguments, "--model", MODEL)
    return moulin("stream", *arguments, "--model", MODEL, stdin=stdin)


def test_a_pipe_gets_the_text_once(clip: Path, said: LiveTranscript) -> None:
    assert moulin("stream", clip, "--model", MODEL).expect(0) == Finished(0, said.text + "\n", "")
    assert stream(clip).expect(0) == Finished(0, said.text + "\n", "")
    assert joined(stream("-", stdin=clip.read_bytes()).expect(0).out) == said.text


def joined(lines: str) -> str:
    """The text of lines that are all whole."""
    assert lines.endswith("\n")
    return " ".join(lines.splitlines())


def test_json_lines(clip: Path, updates: list[StreamUpdate], said: LiveTranscript) -> None:
    *lines, last = map(json.loads, stream(clip, "--format", "json").expect(0).out.splitlines())
    assert list(last) == ["file", "text", "words", "duration_sec"]
    assert last == {"file": str(clip), **said.transcript().to_dict()}

    live = LiveTranscript()
    before = live.text
    for line in lines:
        assert list(line) == ["file", "text", "segments", "endpoint", "is_final", "duration_sec"]
        live.apply(StreamUpdate.from_dict(line))
        assert line["text"] == live.text
        assert line["text"] != before or line["endpoint"] or line["is_final"]
        before = live.text
    assert [line["is_final"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert live.transcript() == said.transcript()
    assert len(lines) <= len(updates)


@pytest.mark.parametrize("format", ["text", "json"])
def test_silence(tmp_path: Path, format: str) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), 16000)
    done = stream(tmp_path / "empty.wav", "--format", format).expect(0)
    if format == "text":
        assert done.out == "\n"
    else:
        update, last = map(json.loads, done.out.splitlines())
        assert (update["segments"], update["is_final"], last["text"]) == ([], True, "")


def test_options_reach_the_engine(clip: Path) -> None:
    def segments(*arguments: str) -> list[int]:
        lines = map(json.loads, stream(clip, "--format", "json", *arguments).expect(0).out.splitlines()[:-1])
        return [segment["number"] for line in lines for segment in line["segments"] if segment["is_final"]]

    assert segments("--no-endpoint") == [0]
    assert segments("--no-endpoint", "--method", "modified_beam_search", "--beam", "2", "--chunk-ms", "77") == [0]


def test_in_real_time_it_hears_the_same(tmp_path: Path, recordings: list[Recording]) -> None:
    soundfile.write(tmp_path / "short.wav", recordings[0].waveform[:8000], 16000)
    paced = stream(tmp_path / "short.wav", "--realtime").expect(0)
    assert paced == stream(tmp_path / "short.wav").expect(0)


def _on_a_terminal(command: Sequence[object], *, out: bool, size: tuple[int, int] = (24, 60)) -> tuple[str, str]:
    """What a terminal is sent, and what standard output gets where that is none."""
    with ExitStack() as files:
        ours, theirs = pty.openpty()
        files.callback(os.close, ours)
        tty.setraw(theirs)  # line feeds as they are
        environ = {**os.environ, "TERM": "xterm", "LINES": str(size[0]), "COLUMNS": str(size[1])}
        process = subprocess.Popen(
            [MOULIN, "stream", *map(str, command), "--model", str(MODEL)],
            stdin=subprocess.DEVNULL,
            stdout=theirs if out else subprocess.PIPE,
            stderr=theirs,
            env=environ,
        )
        os.close(theirs)
        seen = b""
        while chunk := _read(ours):
            seen += chunk
        printed = process.stdout.read() if process.stdout else b""
        if process.stdout:
            process.stdout.close()
        assert process.wait(TIMEOUT_SEC) == 0, seen
        return seen.decode(), printed.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other side is closed
        return b""


def _left_on_screen(sent: str) -> list[str]:
    """The lines of a terminal that has been sent this: text, line feeds, and what rich moves and erases with."""
    lines, row = [""], 0
    for code, text in re.findall(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)|([^\x1b\r\n]+)", sent):
        if code == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif code.endswith("A"):
            row -= 1
        elif code == "\x1b[2K":
            lines[row] = ""
        elif text:
            lines[row] += text
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("out", [True, False], ids=["stdout", "stderr"])
@pytest.mark.parametrize("size", [(24, 60), (4, 20)], ids=str)
def test_a_terminal_shows_the_text_grow_and_settle(
    clip: Path, said: LiveTranscript, updates: list[StreamUpdate], out: bool, size: tuple[int, int]
) -> None:
    seen, printed = _on_a_terminal([clip], out=out, size=size)
    assert printed == ("" if out else said.text + "\n")
    assert [line for line in _left_on_screen(seen) if line] == [segment.text for segment in said.final]
    first = next(segment for update in updates for segment in update.segments)
    assert f"\x1b[2m{first.text[: size[1]].rstrip()}" in seen, "the first partial was not shown dim"


def test_json_on_a_terminal_is_json_alone(clip: Path) -> None:
    seen, _ = _on_a_terminal([clip, "--format", "json"], out=True)
    assert seen == stream(clip, "--format", "json").out


def test_ctrl_c_with_a_file(clip: Path) -> None:
    command = [MOULIN, "stream", str(clip), "--model", str(MODEL), "--realtime", "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT_SEC)
    assert process.returncode == 130
    assert err == b"Interrupted.\n"
    assert all("segments" in json.loads(line) for line in out.splitlines()), "a final result of what was cut off"


# ------------------------------------------------------------------------------------- what is written while it is read


def test_a_pipe_is_heard_while_it_is_written_and_ctrl_c_ends_it(recordings: list[Recording]) -> None:
    """A recorder that never ends. Speech begins when the command has taken more silence than a pipe holds."""
    command = [MOULIN, "stream", "-", "--raw", "s16le:16000", "--model", str(DEMO_STREAMING_MODEL), "--format", "json"]
    speech = (recordings[0].waveform * 32767).astype("<i2").tobytes()
    first_word_sec = recordings[0].heard.words[0].start_sec
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(bytes(32_000 * 4))
        begin, spoken_at = time.monotonic(), 0.0
        lines = LinesAsTheyCome(process.stdout)
        for at in range(0, len(speech), 3201):  # within samples
            process.stdin.write(speech[at : at + 3201])
            process.stdin.flush()
            time.sleep(max(0.0, begin + at / 32_000 - time.monotonic()))
            if not spoken_at and at / 32_000 >= first_word_sec:
                spoken_at = time.monotonic()
            if any(json.loads(line)["text"] for line in lines.so_far):
                break
        heard_at = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_SEC) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stdin.close()
    assert heard_at - spoken_at < 2
    *_, update, last = map(json.loads, lines.all())
    assert update["is_final"]
    assert last["text"].startswith("ONE")


class LinesAsTheyCome:
    """Reads lines in a thread of its own, so that the writer never waits."""

    def __init__(self, source: IO[bytes]) -> None:
        self.so_far: list[bytes] = []
        self._thread = threading.Thread(target=lambda: self.so_far.extend(source), daemon=True)
        self._thread.start()

    def all(self) -> list[bytes]:
        self._thread.join(TIMEOUT_SEC)
        return self.so_far


def test_text_of_a_pipe_comes_line_by_line(recordings: list[Recording], tmp_path: Path) -> None:
    """Lines are whole and there while the speaker goes on, in a pipe and in a file."""
    command = [MOULIN, "stream", "-", "--raw", "s16le:16000", "--model", str(DEMO_STREAMING_MODEL)]
    speech = (recordings[0].waveform * 32767).astype("<i2").tobytes()
    *_, whole = stream_in_process(cut(recordings[0].waveform, 100), DEMO_STREAMING_MODEL, options={})
    said = " ".join(segment.text for segment in whole.segments)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(speech[:100_000])
        process.stdin.flush()
        first = process.stdout.readline().decode()
        process.stdin.write(speech[100_000:])
        process.stdin.close()
        rest = process.stdout.read().decode()
    assert first.startswith("ONE")
    assert len(rest.splitlines()) >= 3
    assert joined(first + rest) == said
    with (tmp_path / "said.txt").open("wb") as file:
        subprocess.run(command, input=speech, stdout=file, check=True)
    assert joined((tmp_path / "said.txt").read_text()) == said


@pytest.mark.parametrize("end", ["closed", "interrupted"])
def test_a_fifo(clip: Path, said: LiveTranscript, tmp_path: Path, end: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    command = [MOULIN, "stream", str(tmp_path / "fifo"), "--model", str(MODEL)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        with (tmp_path / "fifo").open("wb") as fifo:
            file = io.BytesIO()
            soundfile.write(file, read_audio(clip), 16000, format="WAV")
            fifo.write(file.getvalue())
            fifo.flush()
            if end == "interrupted":
                assert process.stdout is not None
                process.stdout.read(1)
                process.send_signal(signal.SIGINT)
                process.wait(TIMEOUT_SEC)
        out, err = process.communicate(timeout=TIMEOUT_SEC)
    assert (process.returncode, err) == (0, b"")
    if end == "closed":
        assert joined(out.decode()) == said.text


def test_the_device_of_standard_input(clip: Path, said: LiveTranscript) -> None:
    assert joined(stream("/dev/stdin", stdin=clip.read_bytes()).expect(0).out) == said.text


def test_a_file_on_standard_input(clip: Path, said: LiveTranscript) -> None:
    with clip.open("rb") as file:
        done = subprocess.run(
            [MOULIN, "stream", "-", "--model", str(MODEL)], stdin=file, capture_output=True, check=True
        )
    assert done.stdout.decode() == said.text + "\n"


def test_a_headerless_file(clip: Path, said: LiveTranscript, tmp_path: Path) -> None:
    (tmp_path / "speech.pcm").write_bytes((read_audio(clip) * 32768).astype("<i2").tobytes())
    assert stream(tmp_path / "speech.pcm", "--raw", "s16le:16000").expect(0).out == said.text + "\n"


def test_a_channel_and_what_is_missing(clip: Path, said: LiveTranscript, tmp_path: Path) -> None:
    """Of a file, and of the same through a pipe."""
    speech = read_audio(clip)
    data = wav(np.zeros_like(speech), speech)
    (tmp_path / "call.wav").write_bytes(data)
    for file, stdin in ((tmp_path / "call.wav", None), ("-", data)):
        assert joined(stream(file, "--channels", "right", stdin=stdin).expect(0).out) == said.text
        assert "has 2 channels, expected channel 3" in stream(file, "--channels", "3", stdin=stdin).expect(1).err
    (tmp_path / "call.wav").write_bytes(data[:-64_000])
    for file, stdin in ((tmp_path / "call.wav", None), ("-", data[:-64_000])):
        done = stream(file, "--channels", "right", stdin=stdin).expect(0)
        assert "about 1.0 s that its header declares are missing" in done.err


def test_floats_that_are_piped_as_integers(clip: Path) -> None:
    done = stream("-", "--raw", "s16le:16000", stdin=read_audio(clip).tobytes()).expect(0)
    assert "seem to be f32le, not s16le" in done.err


def test_what_is_no_audio_on_standard_input() -> None:
    done = stream("-", stdin=b"not audio\n" * 100).expect(1)
    assert "neither WAV nor another container" in done.err
    assert "--raw s16le:16000" in done.err
    assert "is empty (0 bytes)" in stream("-", stdin=b"").expect(1).err


def test_ctrl_c_with_the_microphone(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "sounddevice.py").write_text(FAKE_SOUNDDEVICE)
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "SPEECH": str(clip)}
    command = [MOULIN, "stream", "--mic", "--model", str(MODEL), "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT_SEC)
    assert process.returncode == 0, err
    assert err == b""
    *_, update, last = map(json.loads, out.splitlines())
    assert first["file"] == "microphone"
    assert update["is_final"]
    assert list(last) == ["file", "text", "words", "duration_sec"]
    assert last["text"].startswith(first["text"])


def test_a_reader_that_leaves(clip: Path) -> None:
    command = [MOULIN, "stream", str(clip), "--model", str(MODEL), "--format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(TIMEOUT_SEC)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["x.wav", "--mic"], "Expected a FILE or --mic, got both", None),
        (["--realtime"], "Expected a FILE or --mic, got neither", None),
        (["--mic", "--raw", "s16le:16000"], "Expected --raw with a FILE or -", None),
        (["--mic", "--channels", "left"], "Expected --channels and --track with a FILE or -", None),
        (
            ["x.wav", "--channels", "each"],
            "Expected one transcript of a stream, got channels each",
            "moulin transcribe",
        ),
        (["x.wav", "--track", "all"], "Expected one transcript of a stream, got track all", "moulin transcribe"),
        (["x.wav", "--raw", "s16"], "Expected raw audio as ENCODING:RATE", "s16le:8000"),
        (["x.wav", "--model", "m", "--name", "english"], "Expected --name with a server", "--model recognises"),
        (["x.wav", "--url", "h:1", "--model", "m"], "Expected --url or --model, got both", "without a server"),
        (["x.wav", "--beam", "0"], "Expected a beam of 1 to", None),
        (["/no/such.wav"], "/no/such.wav does not exist", None),
        (["CLIP", "--url", "ws://h:1"], "HOST:PORT of Triton's gRPC", "localhost:8001"),
        (["CLIP", "--url", "http://127.0.0.1:1"], "No gateway answers at http://127.0.0.1:1", "Triton's gRPC port"),
        (["CLIP", "--url", "h:1", "--api-key", "k"], "Expected --api-key with the URL of a gateway", "takes no keys"),
        (["CLIP", "--url", "127.0.0.1:1"], "No Triton server answers at 127.0.0.1:1", "moulin serve"),
        (["CLIP", "--model", BUNDLES / "zipformer2-offline"], "Expected a streaming model", None),
    ],
)
def test_what_is_refused(clip: Path, arguments: list[object], message: str, hint: str | None) -> None:
    done = moulin_here("stream", *(clip if argument == "CLIP" else argument for argument in arguments)).expect(1)
    assert done.out == ""
    first, *rest = done.err.splitlines()
    assert first.startswith("moulin: ")
    assert message in first
    assert hint is None or hint in rest[0]


def test_help() -> None:
    assert "Example: moulin stream " in moulin_here("stream", "--help").expect(0).out
    assert "Usage: moulin stream" in moulin_here("stream").expect(2).err
    assert "Invalid value for '--chunk-ms'" in moulin_here("stream", "x.wav", "--chunk-ms", "0").expect(2).err
