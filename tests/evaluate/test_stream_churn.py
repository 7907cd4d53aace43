"""The faults that engines could have are found; whether ours have them is asked in tests/engine/test_churn.py."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.decoding.options import METHODS
from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.evaluate.stream_churn import run_churn
from moulin.evaluate.stream_crowd import OPTIONS, Churn
from moulin.streaming.stream import Stream
from tests.triton_repo.fake_stream_runner import SPEC, FakeStreamRunner

AUDIO = np.random.default_rng(0).integers(-3000, 3000, 32_000, dtype=np.int16)
CHURN = Churn(streams=200, open_at_once=40, longest_sec=0.6, one_sampled_in=2)


class Flawed(StreamRecognizer):
    """A recognizer with a `flaw` that shows now and then."""

    def __init__(self, flaw: str = "") -> None:
        super().__init__(SPEC, HostStepper(SPEC, FakeStreamRunner(40, max_batch=16)))
        self._flaw = flaw
        self._numbers = itertools.count(1)

    def accept(self, stream: Stream, samples: Floats) -> None:
        if self._flaw != "loses audio" or next(self._numbers) % 20:
            super().accept(stream, samples)

    def close(self, stream: Stream) -> None:
        if self._flaw != "loses a slot" or next(self._numbers) != 50:
            super().close(stream)


def test_what_is_right_has_no_fault() -> None:
    report = run_churn(Flawed(), Flawed(), AUDIO, CHURN)
    assert report.faults == []
    assert report.crowd.ended + report.crowd.vanished == 200
    assert 20 <= report.crowd.vanished <= 60
    assert len(report.crowd.samples) == 100
    # Of the rarest there may be none.
    chosen = {sample.options for sample in report.crowd.samples}
    assert chosen >= {options for share, options in OPTIONS if share > 0.03}
    assert any(sample.steps is not None and sample.text for sample in report.crowd.samples)
    assert report.errors.words > 500
    assert report.crowd.chunks > report.crowd.steps
    # The same again, to a letter.
    again = run_churn(Flawed(), Flawed(), AUDIO, CHURN)
    assert [sample.text for sample in again.crowd.samples] == [sample.text for sample in report.crowd.samples]
    other = run_churn(Flawed(), Flawed(), AUDIO, replace(CHURN, seed=1))
    assert [sample.text for sample in other.crowd.samples] != [sample.text for sample in report.crowd.samples]


def test_a_slot_that_is_lost() -> None:
    lost = ["Expected no stream to be open, got 1", "Expected 40 streams to find a slot, got 39"]
    with_others = run_churn(Flawed("loses a slot"), Flawed(), AUDIO, replace(CHURN, open_at_once=39))
    assert with_others.faults == lost
    report = run_churn(Flawed("loses a slot"), Flawed(), AUDIO, CHURN)
    assert report.faults[0].startswith("Expected a slot for another stream beside 39, got: All 40 streams are in use")
    assert report.faults[1:] == lost


def test_audio_that_is_lost() -> None:
    report = run_churn(Flawed("loses audio"), Flawed(), AUDIO, CHURN)
    assert any("characters to differ" in fault for fault in report.faults)
    told = report.figures().differing[0]
    assert told.expected != told.got
    assert told.method in METHODS
    tolerant = run_churn(Flawed("loses audio"), Flawed(), AUDIO, CHURN, max_differing=0.9)
    assert tolerant.faults == []


def test_a_state_that_another_stream_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stale = Flawed()
    assert isinstance(stale.stepper, HostStepper)
    monkeypatch.setattr(stale.stepper.runner, "reset", lambda _: None)
    report = run_churn(stale, Flawed(), AUDIO, CHURN)
    assert any("characters to differ" in fault for fault in report.faults)


def test_memory_that_grows() -> None:
    quarters = iter([100.0, 150.0, 165.0, 90.0])
    report = run_churn(Flawed(), Flawed(), AUDIO, CHURN, memory=lambda: {"resident": next(quarters)})
    assert report.faults == ["Expected resident to stay at 100 MiB, got 65 MiB more"]
