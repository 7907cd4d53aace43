"""`moulin transcribe`: what it prints where, and its exit status; as a process where that matters."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from moulin.demo.files import DEMO_MODEL
from moulin.launch.server import TritonServer
from tests.bundles import BUNDLES
from tests.conftest import TINY_MODEL, Recording
from tests.gateway.running_gateway import running_gateway

from .command import MOULIN, Finished, moulin, moulin_here

Transcribe = Callable[..., Finished]


@pytest.fixture(scope="module")
def gateway(server: TritonServer) -> Iterator[str]:
    with running_gateway(server.grpc_url) as address:
        yield f"http://{address}"


@pytest.fixture(params=["model", *(pytest.param(way, marks=pytest.mark.triton) for way in ("url", "gateway"))])
def transcribe(request: pytest.FixtureRequest) -> Transcribe:
    """`moulin transcribe` with the demo model in process, through the server, and through a gateway before it."""
    if request.param == "model":
        where = ["--model", str(DEMO_MODEL)]
    elif request.param == "gateway":
        where = ["--url", request.getfixturevalue("gateway")]
    else:
        server: TritonServer = request.getfixturevalue("server")
        where = ["--url", server.grpc_url]

    def run(*arguments: object, stdin: bytes | None = None, here: bool = True) -> Finished:
        if here and stdin is None:
            return moulin_here("transcribe", *where, *arguments)
        return moulin("transcribe", *where, *arguments, stdin=stdin)

    return run


def test_one_file_is_its_text_alone(transcribe: Transcribe, recordings: list[Recording]) -> None:
    alone = Finished(0, recordings[0].text + "\n", "")
    assert transcribe(recordings[0].file, here=False).expect(0) == alone
    assert transcribe(recordings[0].file).expect(0) == alone


def test_several_are_a_table_in_the_order_of_the_arguments(transcribe: Transcribe, recordings: list[Recording]) -> None:
    chosen = [recordings[3], recordings[0], recordings[3], recordings[2]]
    done = transcribe(*(recording.file for recording in chosen)).expect(0)
    assert done.out == "".join(f"{recording.file}\t{recording.text}\n" for recording in chosen)
    seconds = round(sum(recording.heard.duration_sec for recording in chosen))
    assert re.fullmatch(rf"4 files, {seconds} s of audio in [\d.]+ s, \d[\d.]* times real time\n", done.err)


def test_json_is_an_object_a_line(transcribe: Transcribe, recordings: list[Recording]) -> None:
    done = transcribe(recordings[0].file, recordings[1].file, "--format", "json").expect(0)
    for line, recording in zip(done.out.splitlines(), recordings, strict=False):
        entry = json.loads(line)
        assert list(entry) == ["file", "text", "words", "duration_sec"]
        assert (entry["file"], entry["text"]) == (str(recording.file), recording.text)
        assert [word["word"] for word in entry["words"]] == recording.text.split()
        assert list(entry["words"][0]) == ["word", "start_sec", "end_sec", "confidence"]


@pytest.mark.parametrize(("format", "point"), [("srt", ","), ("vtt", ".")])
def test_subtitles(transcribe: Transcribe, recordings: list[Recording], format: str, point: str) -> None:
    lines = transcribe(recordings[0].file, "--format", format).expect(0).out.splitlines()
    head, cue = lines[:2], lines[2:]
    if format == "srt":
        assert head[0] == "1"
        cue = lines[1:]
    else:
        assert head == ["WEBVTT", ""]
    begin, arrow, end = cue[0].split()
    assert arrow == "-->"
    assert begin < end
    assert begin[-4] == end[-4] == point
    assert " ".join(cue[1:]) == recordings[0].text


def test_a_folder_and_what_is_in_it(transcribe: Transcribe, recordings: list[Recording], tmp_path: Path) -> None:
    for place, recording in (("b.flac", recordings[1]), ("a/z.flac", recordings[0])):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        shutil.copy(recording.file, tmp_path / place)
    (tmp_path / "notes.txt").write_text("not audio")
    (tmp_path / "._b.flac").write_bytes(b"\0\5\x16\7 of macOS")
    done = transcribe(tmp_path).expect(0)
    assert done.out == f"{tmp_path}/a/z.flac\t{recordings[0].text}\n{tmp_path}/b.flac\t{recordings[1].text}\n"
    skipped, summary = done.err.splitlines()
    assert skipped == f"skipped in {tmp_path}: 1 file without the suffix of audio (1 .txt)"
    assert summary.startswith("2 files, ")


def test_standard_input(transcribe: Transcribe, recordings: list[Recording]) -> None:
    data = recordings[0].file.read_bytes()
    assert transcribe("-", stdin=data).expect(0).out == recordings[0].text + "\n"
    assert json.loads(transcribe("-", "--format", "json", stdin=data).expect(0).out)["file"] == "-"


def test_raw_samples_at_another_rate(transcribe: Transcribe, recordings: list[Recording], tmp_path: Path) -> None:
    pcm = np.round(recordings[0].waveform * 32767).astype("<i2")
    stereo = np.stack([pcm, pcm], axis=1).tobytes()
    file = tmp_path / "speech.raw"
    file.write_bytes(stereo)
    text = recordings[0].text + "\n"
    assert transcribe("-", "--raw", "s16le:16000", stdin=pcm.tobytes()).expect(0).out == text
    assert transcribe(file, "--raw", "s16le:16000:2").expect(0).out == text
    # Telephone quality: half the rate, and the server is still given 16 kHz.
    done = transcribe("-", "--raw", "s16le:8000", "--format", "json", stdin=pcm[::2].tobytes()).expect(0)
    assert json.loads(done.out)["duration_sec"] == recordings[0].heard.duration_sec


def test_a_bad_file_among_good_ones(transcribe: Transcribe, recordings: list[Recording], tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("this is not audio")
    hot = tmp_path / "hot.wav"
    soundfile.write(hot, np.full(1600, 20000.0, np.float32), 16000, subtype="FLOAT")
    absent = tmp_path / "absent.wav"
    done = transcribe(recordings[0].file, bad, absent, hot, recordings[1].file).expect(1)
    assert done.out == "".join(f"{recording.file}\t{recording.text}\n" for recording in recordings[:2])
    about_bad, about_absent, about_hot, *hints, summary = done.err.splitlines()
    assert about_bad.startswith(f"{bad} cannot be decoded as audio")
    assert about_absent == f"{absent} does not exist, expected an audio file"
    assert about_hot.startswith(str(hot))
    assert all(hint.startswith("  hint: ") for hint in hints)
    assert summary.startswith("5 files, ")
    assert summary.endswith(f"; 3 failed: {bad}, {absent}, {hot}")


@pytest.mark.triton
def test_another_port_than_grpcs_is_recognised(server: TritonServer, gateway: str, recordings: list[Recording]) -> None:
    at_gateway = gateway.removeprefix("http://")
    for address, answers, hint in (
        (server.http_url, "its HTTP", "8001 by default"),
        (at_gateway, "a gateway", f"--url {gateway}"),
    ):
        for verb in ("transcribe", "stream"):
            done = moulin_here(verb, recordings[0].file, "--url", address).expect(1)
            assert f"Expected Triton's gRPC at {address}, got {answers}" in done.err
            assert hint in done.err
    done = moulin_here("transcribe", recordings[0].file, "--url", f"http://{server.grpc_url}").expect(1)
    assert "Triton's gRPC port has nothing in front" in done.err


@pytest.mark.parametrize("address", ["https://example.org/a b.mp3", "s3://bucket/a.wav", "file:///tmp/a.wav"])
def test_addresses_are_not_read(address: str) -> None:
    done = moulin_here("transcribe", address, "--model", DEMO_MODEL).expect(1)
    assert done.err.splitlines()[0] == f"{address} is an address, expected an audio file"
    assert "download it first" in done.err


def test_a_decoder_that_fails_in_a_way_of_its_own(
    recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "talk.m4a").write_bytes(b"only FFmpeg might know")

    def fails(*_arguments: object, **_options: object) -> object:
        raise TypeError("an argument of another version")

    monkeypatch.setattr(av, "open", fails)
    done = moulin_here("transcribe", "--model", DEMO_MODEL, recordings[0].file, tmp_path / "talk.m4a").expect(1)
    assert done.out == f"{recordings[0].file}\t{recordings[0].text}\n"
    assert "FFmpeg says 'TypeError: an argument of another version'" in done.err


def test_audio_of_no_length(transcribe: Transcribe, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), 16000)
    assert transcribe(tmp_path / "empty.wav").expect(0) == Finished(0, "\n", "")
    assert "empty (0 bytes)" in transcribe("-", stdin=b"").expect(1).err


def test_files_into_a_folder(transcribe: Transcribe, recordings: list[Recording], tmp_path: Path) -> None:
    to = tmp_path / "new" / "folder"
    for format, suffix in (("text", "txt"), ("vtt", "vtt")):
        done = transcribe(recordings[0].file, recordings[1].file, "--format", format, "--to", to).expect(0)
        assert done.out == ""
        assert done.err.startswith("2 files, ")
        written = (to / f"phone-01.{suffix}").read_text()
        assert written.endswith("\n")
    assert sorted(path.name for path in to.iterdir()) == [
        "phone-00.txt",
        "phone-00.vtt",
        "phone-01.txt",
        "phone-01.vtt",
    ]
    assert (to / "phone-01.vtt").read_text().startswith("WEBVTT\n\n00:00:")
    assert (to / "phone-00.txt").read_text() == recordings[0].text + "\n"


def test_a_name_that_is_not_unicode(transcribe: Transcribe, recordings: list[Recording], tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9.flac")
    shutil.copy(recordings[0].file, odd)
    command = [MOULIN, "transcribe", "--model", str(DEMO_MODEL), str(odd), str(odd)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (os.fsencode(odd) + b"\t" + recordings[0].text.encode() + b"\n") * 2
    assert transcribe(odd).expect(0).out == recordings[0].text + "\n"


@pytest.mark.triton
def test_another_model_of_the_server(server: TritonServer, recordings: list[Recording]) -> None:
    file = recordings[0].file
    local = moulin_here("transcribe", file, "--model", BUNDLES / "conformer-offline").expect(0)
    assert moulin_here("transcribe", file, "--url", server.grpc_url, "--name", TINY_MODEL).expect(0).out == local.out
    done = moulin_here("transcribe", file, "--url", server.grpc_url, "--name", "nobody").expect(1)
    assert done.err.splitlines() == [
        f"{file}: The server at {server.grpc_url} has no model 'nobody'",
        "  hint: give the name that it is served under (--name)",
    ]


@pytest.mark.parametrize("method", [["--method", "modified_beam_search", "--beam", "2"], ["--method", "greedy"]])
def test_decoding_options_reach_the_decoder(
    transcribe: Transcribe, recordings: list[Recording], method: list[str]
) -> None:
    assert transcribe(recordings[6].file, *method).expect(0).out.split()[:3] == ["ONE", "TWO", "THREE"]


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["--model", "m", "--url", "u"], "Expected --url or --model, got both", "--model recognises without a server"),
        (
            ["--raw", "s16:8000"],
            "Expected raw audio as ENCODING:RATE or ENCODING:RATE:CHANNELS, got 's16:8000'",
            "s16le",
        ),
        (
            ["--url", "ws://localhost:8000"],
            "HOST:PORT of Triton's gRPC, or a gateway's http:// or https://, got 'ws://localhost:8000'",
            "localhost:8001",
        ),
        (["--url", "127.0.0.1:1"], "No Triton server answers at 127.0.0.1:1: Connection refused", "moulin serve"),
        (["--model", "/no/such"], "There is no model at /no/such", "encoder*.onnx"),
        (
            ["--model", DEMO_MODEL, "--precision", "fp16"],
            "has no fp16 encoder, only int8",
            "leave out --precision, or name",
        ),
        (["--model", DEMO_MODEL, "--to", "/dev/null/x"], "Cannot write into the folder /dev/null/x", None),
        (["--beam", "0"], "Expected a beam of 1 to", None),
    ],
)
def test_what_is_refused_before_anything_is_read(
    recordings: list[Recording], arguments: list[object], message: str, hint: str | None
) -> None:
    done = moulin_here("transcribe", recordings[0].file, *arguments).expect(1)
    assert done.out == ""
    first, *rest = done.err.splitlines()
    assert first.startswith("moulin: ")
    assert message in first
    if hint is not None:
        (line,) = rest
        assert line.startswith("  hint: ")
        assert hint in line


def test_subtitles_of_several_files_need_a_folder(recordings: list[Recording]) -> None:
    files = [recordings[0].file, recordings[1].file]
    done = moulin_here("transcribe", *files, "--model", DEMO_MODEL, "--format", "srt").expect(1)
    assert done.err == "moulin: Subtitles of 2 recordings do not go into one file\n  hint: add --to FOLDER\n"


def test_two_files_never_become_one(recordings: list[Recording], tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(recordings[0].file, tmp_path / folder / "same.flac")
    done = moulin_here("transcribe", tmp_path, "--model", DEMO_MODEL, "--to", tmp_path / "out").expect(1)
    assert f"{tmp_path}/a/same.flac and {tmp_path}/b/same.flac would write the same file" in done.err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_audio(tmp_path: Path) -> None:
    done = moulin_here("transcribe", tmp_path, "--model", DEMO_MODEL).expect(1)
    assert done.err == f"moulin: There is no audio in the folder {tmp_path}\n  hint: name the files themselves\n"


def test_a_reader_that_leaves(recordings: list[Recording]) -> None:
    """`moulin transcribe … | head -1` is no reason to complain."""
    files = [str(recording.file) for recording in recordings[:3]]
    with subprocess.Popen(
        [MOULIN, "transcribe", "--model", str(DEMO_MODEL), *files], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(60)


def test_a_recording_longer_than_the_model_takes(
    transcribe: Transcribe, recordings: list[Recording], tmp_path: Path
) -> None:
    """Two minutes, where the model takes 40 s; the times are those of the recording."""
    silence = np.zeros(32000, np.float32)
    joined = np.concatenate([part for recording in recordings for part in (recording.waveform, silence)])
    soundfile.write(tmp_path / "long.flac", joined, 16000)
    done = transcribe(tmp_path / "long.flac", recordings[0].file, "--format", "json").expect(0)
    long, short = map(json.loads, done.out.splitlines())
    assert short["text"] == recordings[0].text
    assert long["duration_sec"] == pytest.approx(len(joined) / 16000, abs=0.001)
    heard = [
        [word["word"] for word in long["words"] if start <= word["start_sec"] < end]
        for start, end in _spans(recordings)
    ]
    as_apart = sum(words == recording.text.split() for words, recording in zip(heard, recordings, strict=True))
    assert as_apart >= 9  # a recording in a piece begins elsewhere, and some words of some recordings are a near thing
    assert " ".join(word["word"] for word in long["words"]) == long["text"]


def _spans(recordings: list[Recording]) -> list[tuple[float, float]]:
    """From when to when each recording lasts, with two seconds of silence after each."""
    lengths = [len(recording.waveform) / 16000 + 2.0 for recording in recordings]
    return [(sum(lengths[:n]) - 0.1, sum(lengths[: n + 1]) - 0.1) for n in range(len(lengths))]


@pytest.fixture
def call(recordings: list[Recording], tmp_path: Path) -> Path:
    """Two people who speak at once, each in a channel."""
    one, other = recordings[3].waveform, recordings[5].waveform
    length = max(len(one), len(other))
    channels = [np.pad(voice, (0, length - len(voice))) for voice in (one, other)]
    soundfile.write(tmp_path / "call.wav", np.stack(channels, axis=1), 16000)
    for number, channel in enumerate(channels, start=1):
        soundfile.write(tmp_path / f"{number}.wav", channel, 16000)
    return tmp_path / "call.wav"


def test_each_channel_by_itself(transcribe: Transcribe, call: Path) -> None:
    done = transcribe(call, "--channels", "each", "--format", "json").expect(0)
    words = json.loads(done.out)["words"]
    for channel in (1, 2):
        spoken = [(word["word"], word["start_sec"]) for word in words if word["channel"] == channel]
        alone = json.loads(transcribe(call.with_name(f"{channel}.wav"), "--format", "json").expect(0).out)["words"]
        assert spoken == [(word["word"], word["start_sec"]) for word in alone]
        assert len(spoken) > 8
    srt = transcribe(call, "--channels", "each", "--format", "srt").expect(0).out
    assert srt.count("[channel 1] ") >= 1
    assert srt.count("[channel 2] ") >= 1
    assert "[channel" not in transcribe(call, "--channels", "right", "--format", "srt").expect(0).out
    assert transcribe(call, "--channels", "right").expect(0) == transcribe(call.with_name("2.wav"))


def test_each_channel_of_raw_samples(transcribe: Transcribe, call: Path) -> None:
    samples, _ = soundfile.read(call, dtype="int16")
    alone = [transcribe(call.with_name(f"{channel}.wav")).expect(0).out for channel in (1, 2)]
    done = transcribe("-", "--raw", "s16le:16000:2", "--channels", "2", stdin=samples.astype("<i2").tobytes())
    assert done.expect(0).out == alone[1]
    done = transcribe("-", "--raw", "s16le:16000:2", "--channels", "each", stdin=samples.astype("<i2").tobytes())
    assert sorted(done.expect(0).out.split()) == sorted("".join(alone).split())


def test_what_is_missing_is_said(transcribe: Transcribe, recordings: list[Recording], tmp_path: Path) -> None:
    content = recordings[0].file.read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    done = transcribe(tmp_path / "cut.flac", "--format", "json").expect(0)
    (warning,) = json.loads(done.out)["warnings"]
    assert "damaged or cut short" in warning
    assert done.err == f"warning: {tmp_path / 'cut.flac'}: {warning}\n"
