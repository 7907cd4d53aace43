"""Recordings heard by streaming models: in process, on a server, several at once, and long ones."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moulin import transcribe_by_stream
from moulin.audio.selection import Selection
from moulin.audio.source import AudioSource
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import AudioError, BundleError, EngineError, MoulinError
from moulin.launch.server import TritonServer
from moulin.transcribe_by_stream import is_streaming_model
from moulin.transcribe_files import transcribe_in_process, transcribe_on_server
from moulin.transcript import PlacedWord, Transcript
from tests.audio.media import Track, media
from tests.conftest import Recording

from .bundles import BUNDLES


@pytest.fixture
def sources(recordings: list[Recording], tmp_path: Path) -> list[AudioSource]:
    """All recordings, with a file between that is none and an empty one."""
    (tmp_path / "broken.wav").write_bytes(b"no audio" * 100)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), 16000)
    files = [str(recording.file) for recording in recordings]
    return [
        AudioSource(name)
        for name in (*files[:5], str(tmp_path / "broken.wav"), *files[5:], str(tmp_path / "empty.wav"))
    ]


def check(found: list[Transcript | MoulinError], heard_live: list[Transcript]) -> None:
    assert len(found) == 16
    broken, empty = found.pop(5), found.pop()
    assert isinstance(broken, AudioError)
    assert isinstance(empty, Transcript)
    assert empty.text == ""
    assert [transcript.text for transcript in found if isinstance(transcript, Transcript)] == [
        heard.text for heard in heard_live
    ]
    for transcript, heard in zip(found, heard_live, strict=True):
        assert isinstance(transcript, Transcript)
        times = [(word.word, word.start_sec, word.end_sec) for word in transcript.words]
        assert times == [(word.word, word.start_sec, word.end_sec) for word in heard.words]
        assert transcript.duration_sec == heard.duration_sec


@pytest.mark.parametrize("at_once", [1, 3, 16])
def test_in_process(
    sources: list[AudioSource], heard_live: list[Transcript], monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(transcribe_by_stream, "_STREAMS_AT_ONCE", at_once)
    progress: dict[str, float] = {}
    outcomes = list(
        transcribe_in_process(
            sources,
            DEMO_STREAMING_MODEL,
            changes={},
            on_progress=lambda source, seconds: progress.update({source.name: seconds}),
        )
    )
    assert [outcome.source for outcome in outcomes] == sources
    assert progress[sources[0].name] == pytest.approx(heard_live[0].duration_sec, abs=0.01)
    check([outcome.result for outcome in outcomes], heard_live)


@pytest.mark.triton
def test_on_a_server(server: TritonServer, sources: list[AudioSource], heard_live: list[Transcript]) -> None:
    found = transcribe_on_server(sources, server.grpc_url, model="transducer_streaming", changes={}, jobs=8)
    outcomes = list(found)
    assert [outcome.source for outcome in outcomes] == sources
    check([outcome.result for outcome in outcomes], heard_live)


def test_a_long_recording(recordings: list[Recording], tmp_path: Path) -> None:
    """Endpoints make the segments; times count from the beginning, and grow."""
    gap = np.zeros(24_000, np.float32)
    audio = np.concatenate([part for recording in recordings[:6] for part in (recording.waveform, gap)])
    soundfile.write(tmp_path / "long.flac", audio, 16000)
    source = AudioSource(str(tmp_path / "long.flac"))
    (outcome,) = transcribe_in_process([source], DEMO_STREAMING_MODEL, changes={})
    assert isinstance(outcome.result, Transcript)
    assert len(outcome.result.words) > 50
    assert outcome.result.duration_sec == pytest.approx(len(audio) / 16000, abs=1e-3)
    for word, following in itertools.pairwise(outcome.result.words):
        assert word.start_sec < word.end_sec <= following.start_sec
    assert outcome.result.words[-1].start_sec > len(audio) / 16000 - 6


def test_a_step_that_fails_is_not_for_ever(recordings: list[Recording], monkeypatch: pytest.MonkeyPatch) -> None:
    usual, steps = StreamRecognizer.step, itertools.count()

    def step(self: StreamRecognizer, streams: object) -> None:
        if next(steps) == 3:
            raise EngineError("out of memory")
        usual(self, streams)  # type: ignore[arg-type]

    monkeypatch.setattr(StreamRecognizer, "step", step)
    monkeypatch.setattr(transcribe_by_stream, "_STREAMS_AT_ONCE", 1)
    sources = [AudioSource(str(recording.file)) for recording in recordings[:2]]
    first, second = transcribe_in_process(sources, BUNDLES / "zipformer2-streaming", changes={})
    assert isinstance(first.result, EngineError)
    assert isinstance(second.result, Transcript)


def test_which_models() -> None:
    assert is_streaming_model(DEMO_STREAMING_MODEL)
    assert not is_streaming_model(DEMO_MODEL)


def test_a_model_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent"):
        list(transcribe_in_process([], tmp_path / "absent", changes={}))


@pytest.fixture
def call(recordings: list[Recording], tmp_path: Path) -> Path:
    """Two talkers at once, one a channel, of a call whose end is missing."""
    waveforms = [recording.waveform for recording in recordings[:2]]
    length = max(map(len, waveforms)) + 32_000
    both = np.stack([np.pad(waveform, (0, length - len(waveform))) for waveform in waveforms], axis=1)
    path = tmp_path / "call.wav"
    soundfile.write(path, both, 16_000)
    path.write_bytes(path.read_bytes()[:-64_000])
    return path


@pytest.fixture
def paused(recordings: list[Recording], tmp_path: Path) -> Path:
    """A recording, and another one after a pause of three minutes, for which there is no audio."""
    one, other = recordings[0].waveform, recordings[1].waveform
    at_sec = len(one) / 16_000
    path = tmp_path / "paused.webm"
    path.write_bytes(media("webm", "libopus", Track(np.concatenate([one, other]), gap_at_sec=at_sec, gap_sec=180)))
    return path


def heard_by(server: TritonServer | None, source: AudioSource) -> Transcript:
    if server is None:
        (outcome,) = transcribe_in_process([source], DEMO_STREAMING_MODEL, changes={})
    else:
        (outcome,) = transcribe_on_server([source], server.grpc_url, model="transducer_streaming", changes={}, jobs=1)
    assert isinstance(outcome.result, Transcript), outcome.result
    return outcome.result


@pytest.mark.parametrize("where", ["process", pytest.param("server", marks=pytest.mark.triton)])
def test_each_channel_in_a_stream_of_its_own(
    request: pytest.FixtureRequest, where: str, call: Path, heard_live: list[Transcript]
) -> None:
    server = request.getfixturevalue("server") if where == "server" else None
    found = heard_by(server, AudioSource(str(call), selection=Selection("each")))
    for channel, heard in enumerate(heard_live[:2], start=1):
        words = [word.word for word in found.words if isinstance(word, PlacedWord) and word.channel == channel]
        assert " ".join(words) == heard.text
    (warning,) = found.warnings
    assert "cut short" in warning


@pytest.mark.parametrize("where", ["process", pytest.param("server", marks=pytest.mark.triton)])
def test_times_go_on_behind_a_long_pause(
    request: pytest.FixtureRequest, where: str, paused: Path, recordings: list[Recording], heard_live: list[Transcript]
) -> None:
    server = request.getfixturevalue("server") if where == "server" else None
    found = heard_by(server, AudioSource(str(paused)))
    begins = len(recordings[0].waveform) / 16_000 + 180
    after = [word for word in found.words if word.start_sec > begins - 1]
    assert after[0].start_sec == pytest.approx(begins + heard_live[1].words[0].start_sec, abs=0.2)
    assert abs(len(after) - len(heard_live[1].words)) <= 2
    assert abs(len(found.words) - len(after) - len(heard_live[0].words)) <= 2
    assert found.duration_sec == pytest.approx(begins + len(recordings[1].waveform) / 16_000, abs=0.3)
