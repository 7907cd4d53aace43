"""Differences that are there and differences that are not, in results with known noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moulin.errors import OptionsError
from moulin.evaluate.accuracy import Accuracy
from moulin.evaluate.compare import compare, differences
from moulin.evaluate.report import Header, Report
from moulin.evaluate.results.accuracy import AccuracyFigures, UtteranceAccuracy
from moulin.evaluate.results.encoder import EncoderFigures
from moulin.evaluate.results.gpu_engine import Calls, GpuEngineFigures, PipelineRun
from moulin.evaluate.results.loads import LoadFigures, LoadRun
from moulin.evaluate.results.offline import OfflineFigures, Throughput
from moulin.evaluate.results.setup import Percentiles

HEADER = Header("2026-11-28", {}, {}, "moulin bench x")


def accuracy(errors: list[int], *, target: str = "moulin", words: int = 10, failed: tuple[int, ...] = ()) -> Report:
    utterances = [
        UtteranceAccuracy(str(number), "", "", 1.0, count, words, 0, 0, count, count, 40, None)
        for number, count in enumerate(errors)
    ]
    for number in failed:
        utterances[number] = replace(utterances[number], failure="no reply")
    result = Accuracy(target).figures()
    return Report(HEADER, AccuracyFigures("accuracy", [replace(result, utterances=utterances)]))


def offline(seconds: list[float]) -> Report:
    return Report(HEADER, OfflineFigures("offline", 100.0, [Throughput("moulin", seconds, 1.0, 1.0, 1.0, 0.0, 0, 0)]))


def streaming(p95: list[float], *, streams: int = 48) -> Report:
    none = Percentiles(None, None, None, None, None)
    latencies = [Percentiles(value / 2, None, value, value * 2, None) for value in p95]
    runs = [LoadRun("moulin", 20, it, none, 0, 0.0, None, 0.0, streams=streams) for it in latencies]
    return Report(HEADER, LoadFigures("streaming", runs))


def test_what_other_processes_disturbed_has_no_winner() -> None:
    before, after = streaming([20, 21, 22]), streaming([40, 41, 42])
    assert {change.verdict for change in compare(before, after) if change.unit == "ms"} == {"worse"}
    assert isinstance(after.figures, LoadFigures)
    runs = [replace(run, disturbed=number == 1) for number, run in enumerate(after.figures.runs)]
    disturbed = Report(HEADER, replace(after.figures, runs=runs))
    for pair in ((before, disturbed), (disturbed, before)):
        assert {change.verdict for change in compare(*pair) if change.unit == "ms"} == {"cannot be said: disturbed"}


def gpu_engine(call_ms: list[float]) -> Report:
    calls = Calls(100.0, call_ms)
    return Report(HEADER, GpuEngineFigures(pipeline=[PipelineRun("small", "greedy", 4, 8, 3, calls, calls)]))


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
    before, after = accuracy([1, 1, 1, 1]), accuracy([1, 1, 1, 1, 9, 9], failed=(0,))
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


def test_calls_of_the_gpu_engine_are_compared_one_by_one() -> None:
    changes = compare(gpu_engine([10.0, 10.1, 9.9]), gpu_engine([12.0, 12.1, 11.9]))
    assert [(it.what, it.verdict) for it in changes] == [
        ("small, greedy, 8 at once, float32", "worse"),
        ("small, greedy, 8 at once, int16", "worse"),
    ]


def test_a_kind_without_figures_to_compare_is_refused() -> None:
    encoder = Report(HEADER, EncoderFigures([]))
    with pytest.raises(OptionsError, match="kind encoder are not compared"):
        compare(encoder, encoder)


def test_what_else_differs_is_listed() -> None:
    machines: tuple[dict[str, str | int | float], ...] = {"cpu": "x", "cores": 2}, {"cpu": "x", "cores": 4, "gpu": "y"}
    a, b = (replace(HEADER, machine=machine) for machine in machines)
    old, new = LoadFigures("streaming", [], normalizer="case", threads=2), LoadFigures("streaming", [], threads=4)
    assert differences(Report(a, old), Report(b, new)) == [
        "machine cores: 2 → 4",
        "machine gpu: none → y",
        "threads: 2 → 4",
    ]
