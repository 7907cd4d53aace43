"""`transcribe_in_process` with a recognizer that fails: what is wrong with one recording stops no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.audio.source import AudioSource
from moulin.errors import AudioError, EngineError
from moulin.evaluate.manifest import demo_clips
from moulin.models import open_recognizer
from moulin.transcribe_files import transcribe_in_process
from moulin.transcript import Transcript


class FailingRecognizer:
    """Hears lengths; breaks on batches with a waveform of 13 samples."""

    max_utterance_sec = 40.0

    longest = 100

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __enter__(self) -> FailingRecognizer:
        return self

    def __exit__(self, *_: object) -> None: ...

    def check(self, waveform: Floats) -> Floats:
        if len(waveform) > self.longest:
            raise AudioError("too long")
        return waveform

    def transcribe(self, waveforms: Sequence[Floats]) -> list[Transcript]:
        self.batches.append([len(waveform) for waveform in waveforms])
        if 13 in self.batches[-1]:
            raise RuntimeError("unlucky")
        return [Transcript(str(len(waveform)), (), 0.0) for waveform in waveforms]


@pytest.fixture
def recognizer(monkeypatch: pytest.MonkeyPatch) -> FailingRecognizer:
    fake = FailingRecognizer()

    def opened(*_: Any, **__: Any) -> FailingRecognizer:
        return fake

    monkeypatch.setattr(open_recognizer, "open_recognizer", opened)
    return fake


@pytest.fixture(scope="module")
def speech() -> Floats:
    """Two seconds of somebody who does not pause."""
    return read_audio(next(iter(demo_clips())).audio)[16000:48000]


def _sources(folder: Path, lengths: Sequence[int]) -> list[AudioSource]:
    for number, length in enumerate(lengths):
        soundfile.write(folder / f"{number:03}.wav", np.zeros(length, np.float32), 16000)
    return [AudioSource(str(folder / f"{number:03}.wav")) for number in range(len(lengths))]


def test_the_culprit_alone_has_no_transcript(recognizer: FailingRecognizer, tmp_path: Path) -> None:
    sources = [*_sources(tmp_path, [11, 13, 200, 17]), AudioSource(str(tmp_path / "absent.wav"))]
    outcomes = list(transcribe_in_process(sources, tmp_path, changes={}))
    assert [outcome.source for outcome in outcomes] == sources
    heard, unlucky, long, also_heard, absent = [outcome.result for outcome in outcomes]
    assert isinstance(heard, Transcript)
    assert isinstance(also_heard, Transcript)
    assert (heard.text, also_heard.text) == ("11", "17")
    assert isinstance(unlucky, EngineError)
    assert unlucky.message == "Recognition failed: unlucky"
    assert isinstance(long, AudioError)
    assert isinstance(absent, AudioError)
    assert recognizer.batches == [[11, 13, 17], [11], [13], [17]]


def test_a_long_recording_goes_on_in_rounds_beside_short_ones(
    recognizer: FailingRecognizer, tmp_path: Path, speech: Floats
) -> None:
    """The short ones are reported as soon as they are done, and the pieces of the long one are in order."""
    recognizer.longest = 1 << 30
    recognizer.max_utterance_sec = 3.0
    soundfile.write(tmp_path / "long.wav", np.tile(speech, 40), 16000)
    short = _sources(tmp_path, [11, 12])
    sources = [short[0], AudioSource(str(tmp_path / "long.wav")), short[1]]
    progress: list[tuple[AudioSource, float]] = []
    outcomes = transcribe_in_process(sources, tmp_path, changes={}, on_progress=lambda *heard: progress.append(heard))
    assert next(outcomes).source == short[0]
    long, last = outcomes
    assert (long.source, last.source) == (sources[1], short[1])
    assert isinstance(long.result, Transcript)
    assert long.result.duration_sec == pytest.approx(40 * len(speech) / 16000, abs=0.001)
    lengths = [length for batch in recognizer.batches for length in batch if length > 100]
    assert long.result.text == " ".join(map(str, lengths))
    assert max(lengths) <= 48000
    assert len(recognizer.batches[0]) == 1 + 5 + 1
    seconds = [seconds for source, seconds in progress if source == sources[1]]
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(long.result.duration_sec, abs=1.0)


def test_only_so_many_recordings_are_in_memory(recognizer: FailingRecognizer, tmp_path: Path) -> None:
    sources = _sources(tmp_path, [20] * 70)
    outcomes = transcribe_in_process(sources, tmp_path, changes={})
    next(outcomes)
    assert recognizer.batches == [[20] * 64]
    assert len(list(outcomes)) == 69
    assert recognizer.batches == [[20] * 64, [20] * 6]
