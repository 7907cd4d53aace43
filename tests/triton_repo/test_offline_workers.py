"""`OfflineWorkers` without Triton and without a model."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.waveform import check_waveform
from moulin.decoding.options import DecodingOptions
from moulin.errors import EngineError, MoulinError
from moulin.transcript import Transcript
from moulin.triton_repo.offline_service import OfflineRequest, OfflineService, Utterance
from moulin.triton_repo.offline_workers import OfflineWorkers

Answer = list[Transcript] | MoulinError


class Patient:
    """Hears the length of each waveform, when it may; fails where a waveform holds 0.5."""

    options = DecodingOptions()

    def __init__(self) -> None:
        self.began: SimpleQueue[int] = SimpleQueue()
        self.may_end = {length: threading.Event() for length in range(10)}

    def check_form(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        return check_waveform(waveform, what=what)

    def transcribe_each(
        self, waveforms: Sequence[Floats], options: Sequence[DecodingOptions], names: Sequence[str]
    ) -> list[Transcript | MoulinError]:
        assert len(options) == len(names) == len(waveforms)
        self.began.put(len(waveforms[0]))
        assert self.may_end[len(waveforms[0])].wait(60)
        if any(0.5 in waveform for waveform in waveforms):
            raise RuntimeError("out of memory")
        return [Transcript(str(len(waveform)), (), len(waveform) / 16000) for waveform in waveforms]


@pytest.fixture
def engine() -> Patient:
    return Patient()


@pytest.fixture
def workers(engine: Patient) -> Iterator[OfflineWorkers]:
    them = OfflineWorkers(OfflineService(engine), 2)
    yield them
    for event in engine.may_end.values():
        event.set()
    them.close()


def utterances(engine: Patient, *lengths: int, value: float = 0.0) -> list[Utterance]:
    request = OfflineRequest(
        np.full((len(lengths), 10), value, np.float32), np.array(lengths, np.int32).reshape(-1, 1), None
    )
    checked = OfflineService(engine).check(request)
    assert not isinstance(checked, MoulinError)
    return checked


def texts(answer: Answer) -> list[str]:
    assert not isinstance(answer, MoulinError), answer
    return [transcript.text for transcript in answer]


def test_a_short_request_is_answered_while_a_long_one_is_under_way(engine: Patient, workers: OfflineWorkers) -> None:
    answers: SimpleQueue[Answer] = SimpleQueue()
    workers.submit(utterances(engine, 9, 1), answers.put)
    workers.submit(utterances(engine, 2), answers.put)
    assert {engine.began.get(timeout=60) for _ in range(2)} == {9, 2}
    engine.may_end[2].set()
    assert texts(answers.get(timeout=60)) == ["2"]
    engine.may_end[9].set()
    assert texts(answers.get(timeout=60)) == ["9", "1"]
    counters = workers.counters
    assert (counters.requests, counters.audio_sec) == (2, 12 / 16000)
    assert counters.seconds > 0


def test_submit_returns_when_a_worker_has_the_request(engine: Patient, workers: OfflineWorkers) -> None:
    """Further requests stay in Triton's queue, which counts them and refuses those that are too many."""
    answers: SimpleQueue[Answer] = SimpleQueue()
    for length in (3, 4):
        workers.submit(utterances(engine, length), answers.put)
    taken = threading.Event()

    def third() -> None:
        workers.submit(utterances(engine, 5), answers.put)
        taken.set()

    thread = threading.Thread(target=third)
    thread.start()
    assert not taken.wait(0.05)
    engine.may_end[4].set()
    assert texts(answers.get(timeout=60)) == ["4"]
    assert taken.wait(60)
    thread.join()


def test_a_failure_is_one_requests_own(engine: Patient, workers: OfflineWorkers) -> None:
    answers: SimpleQueue[Answer] = SimpleQueue()
    for event in engine.may_end.values():
        event.set()
    workers.submit(utterances(engine, 6, value=0.5), answers.put)
    failed = answers.get(timeout=60)
    assert isinstance(failed, EngineError)
    assert str(failed) == "Recognition failed: out of memory"
    for _ in range(5):  # no place is lost
        workers.submit(utterances(engine, 7), answers.put)
        assert texts(answers.get(timeout=60)) == ["7"]


def test_closing_answers_what_is_under_way(engine: Patient) -> None:
    workers = OfflineWorkers(OfflineService(engine), 2)
    answers: SimpleQueue[Answer] = SimpleQueue()
    workers.submit(utterances(engine, 8), answers.put)
    engine.may_end[8].set()
    workers.close()
    assert texts(answers.get_nowait()) == ["8"]
