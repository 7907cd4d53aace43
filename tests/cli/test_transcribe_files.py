"""`transcribe_in_process` with a recognizer that fails: what is wrong with one recording stops no other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from moulin.audio.source import AudioSource
from moulin.decoding.network import Floats
from moulin.engine import open_recognizer
from moulin.errors import AudioError, EngineError
from moulin.transcribe_files import transcribe_in_process
from moulin.transcript import Transcript


class FailingRecognizer:
    """Hears lengths; breaks on batches with a waveform of 13 samples."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __enter__(self) -> FailingRecognizer:
        return self

    def __exit__(self, *_: object) -> None: ...

    def check(self, waveform: Floats) -> Floats:
        if len(waveform) > 100:
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


def _sources(folder: Path, lengths: Sequence[int]) -> list[AudioSource]:
    for number, length in enumerate(lengths):
        soundfile.write(folder / f"{number:03}.wav", np.zeros(length, np.float32), 16000)
    return [AudioSource(str(folder / f"{number:03}.wav")) for number in range(len(lengths))]


def test_the_culprit_alone_has_no_transcript(recognizer: FailingRecognizer, tmp_path: Path) -> None:
    sources = [*_sources(tmp_path, [11, 13, 200, 17]), AudioSource(str(tmp_path / "absent.wav"))]
    outcomes = list(transcribe_in_process(sources, tmp_path, changes={}))
    assert [outcome.source for outcome in outcomes] == sources
    heard, unlucky, long, also_heard, absent = [outcome.result for outcome in outcomes]
    assert (heard, also_heard) == (Transcript("11", (), 0.0), Transcript("17", (), 0.0))
    assert isinstance(unlucky, EngineError)
    assert unlucky.message == "Recognition failed: unlucky"
    assert isinstance(long, AudioError)
    assert isinstance(absent, AudioError)
    assert recognizer.batches == [[11, 13, 17], [11], [13], [17]]


def test_only_so_many_recordings_are_in_memory(recognizer: FailingRecognizer, tmp_path: Path) -> None:
    sources = _sources(tmp_path, [20] * 70)
    outcomes = transcribe_in_process(sources, tmp_path, changes={})
    next(outcomes)
    assert recognizer.batches == [[20] * 64]
    assert len(list(outcomes)) == 69
    assert recognizer.batches == [[20] * 64, [20] * 6]
