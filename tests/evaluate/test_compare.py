"""Differences that are there and differences that are not, in results with known noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moulin.errors import OptionsError
from moulin.evaluate.compare import compare, differences


def accuracy(errors: list[int], *, target: str = "moulin", words: int = 10) -> dict[str, Any]:
    utterances = [
        {
            "id": str(number),
            "errors": count,
            "words": words,
            "character_errors": count,
            "characters": 40,
            "failure": None,
        }
        for number, count in enumerate(errors)
    ]
    return {"kind": "accuracy", "accuracy": [{"target": target, "utterances": utterances}]}


def offline(seconds: list[float]) -> dict[str, Any]:
    return {"kind": "offline", "audio_sec": 100.0, "targets": [{"name": "moulin", "seconds": seconds}]}


def streaming(p95: list[float], *, streams: int = 48) -> dict[str, Any]:
    latency = [{"p50": value / 2, "p95": value, "p99": value * 2} for value in p95]
    runs = [
        {"target": "moulin", "streams": streams, "latency_ms": it, "final_latency_ms": {"p95": None}} for it in latency
    ]
    return {"kind": "streaming", "runs": runs}


def test_few_errors_more_on_every_recording_are_a_change_though_recordings_differ_much() -> None:
    """Pairing: the recordings' own spread is far larger than the difference."""
    before = [0, 8, 1, 7, 2, 6, 3, 5, 0, 9] * 4
    wer = compare(accuracy(before), accuracy([count + 1 for count in before]))[0]
    assert (wer.what, wer.verdict) == ("WER of moulin", "worse")
    assert wer.b - wer.a == pytest.approx(10)
    assert wer.low == wer.high == pytest.approx(10)
    assert compare(accuracy([count + 1 for count in before]), accuracy(before))[0].verdict == "better"


def test_errors_that_move_from_one_recording_to_another_are_noise() -> None:
    before = [0, 1] * 30
    assert compare(accuracy(before), accuracy(before[::-1]))[0].verdict == "within noise"
    assert compare(accuracy(before), accuracy(before))[0].verdict == "within noise"


def test_the_interval_of_a_word_error_rate_is_the_one_by_hand() -> None:
    """Half of 400 recordings of ten words get an error: 5 % ± 1.96 standard errors of a coin."""
    before, after = [0] * 400, [0, 1] * 200
    wer = compare(accuracy(before), accuracy(after))[0]
    margin = 100 * 1.96 * np.sqrt(0.25 / 400) / 10
    assert wer.low == pytest.approx(5 - margin, abs=0.05)
    assert wer.high == pytest.approx(5 + margin, abs=0.05)


def test_only_recordings_in_both_are_compared() -> None:
    before, after = accuracy([1, 1, 1, 1]), accuracy([1, 1, 1, 1, 9, 9])
    after["accuracy"][0]["utterances"][0]["failure"] = "no reply"
    wer = compare(before, after)[0]
    assert wer.a == wer.b
    assert wer.basis == "3 recordings, paired"


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ([1.0, 1.01, 0.99, 1.0, 1.02], [1.2, 1.21, 1.19, 1.2, 1.22], "worse"),
        ([1.2, 1.21, 1.19], [1.0, 1.01, 0.99], "better"),
        ([1.0, 1.3, 0.8, 1.1, 0.9], [1.05, 1.25, 0.85, 1.0, 0.95], "within noise"),
        ([1.0, 1.0], [5.0, 5.0], "cannot be said"),
    ],
)
def test_speed_is_compared_by_rounds_of_which_three_are_needed(
    before: list[float], after: list[float], verdict: str
) -> None:
    (speed,) = compare(offline(before), offline(after))
    assert (speed.what, speed.verdict) == ("RTFx of moulin", verdict)


def test_latencies_are_compared_at_the_same_load() -> None:
    changes = compare(streaming([100, 104, 98, 101]), streaming([150, 149, 152, 151]))
    assert {change.what: change.verdict for change in changes} == {
        "p50 of moulin at 48": "worse",
        "p95 of moulin at 48": "worse",
        "p99 of moulin at 48": "worse",
    }
    with pytest.raises(OptionsError, match="no target and load in common"):
        compare(streaming([100] * 3), streaming([100] * 3, streams=64))


def test_single_targets_are_compared_whatever_they_are_called() -> None:
    wer = compare(accuracy([1] * 9, target="old"), accuracy([1] * 9, target="new"))[0]
    assert wer.what == "WER of old → new"


def test_two_kinds_have_nothing_in_common() -> None:
    with pytest.raises(OptionsError, match="Expected two results of one kind, got accuracy and offline"):
        compare(accuracy([1]), offline([1.0]))


def test_what_else_differs_is_listed() -> None:
    a = {"machine": {"cpu": "x", "cores": 2}, "threads": 2, "normalizer": "case"}
    b = {"machine": {"cpu": "x", "cores": 4, "gpu": "y"}, "threads": 4}
    assert differences(a, b) == ["machine cores: 2 → 4", "machine gpu: none → y", "threads: 2 → 4"]
