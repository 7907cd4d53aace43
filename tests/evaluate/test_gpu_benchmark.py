"""Parts of the benchmark of the GPU engine that need no GPU, on the plain modules."""

from __future__ import annotations

import cProfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from moulin.engine.recognizer import Recognizer
from moulin.evaluate import gpu_benchmark
from moulin.evaluate.gpu_benchmark import GREEDY, Corpus, measure_hotwords, measure_options, measure_pipeline
from moulin.models.open_recognizer import open_recognizer
from tests.bundles import BUNDLES

pytestmark = pytest.mark.needs("torch")


@pytest.fixture(autouse=True)
def few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_benchmark, "WARMUP_PASSES", 0)
    monkeypatch.setattr(gpu_benchmark, "_CALLS", 1)
    monkeypatch.setattr(gpu_benchmark, "_LONGEST_SEC", 2.5)


@pytest.fixture(scope="module")
def recognizer() -> Iterator[Recognizer]:
    with open_recognizer(BUNDLES / "zipformer2-offline" / "epoch-1.pt") as opened:
        yield opened


def test_utterances_are_the_same_every_time_and_of_all_lengths() -> None:
    first, again, other = (Corpus().batch(20, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert [len(samples) for samples in first] != [len(samples) for samples in other]
    assert all(2 * 16_000 <= len(samples) <= 2.5 * 16_000 for samples in first)
    assert {len(samples) for samples in Corpus().of_length(3, 8000)} == {8000}


def test_the_pipeline(recognizer: Recognizer) -> None:
    run = measure_pipeline(recognizer, "tiny", GREEDY, 2, 3)
    assert (run.size, run.method, run.batch, run.calls) == ("tiny", "greedy", 2, 3)
    for calls in (run.float32, run.int16):
        assert len(calls.call_ms) == 3
        assert calls.rtfx > 0


def test_mixed_options_are_all_different_and_beside_equal_ones(recognizer: Recognizer) -> None:
    sets = [gpu_benchmark._mixed(number) for number in range(14)]
    assert len(set(sets)) == 14
    assert {it.method for it in sets} == {"greedy", "modified_beam_search"}
    run = measure_options(recognizer, "tiny")
    assert run.batch == 14
    assert run.ratio == pytest.approx(run.mixed_ms / run.equal_ms, rel=0.01)


def test_lists_of_hotwords_by_turns(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_benchmark, "_kernel_us", lambda *_: 5.0)
    one, other = (gpu_benchmark._phrases(recognizer, np.random.default_rng(seed)) for seed in (0, 1))
    _, graph = recognizer.graphs(replace(GREEDY, hotwords=one))
    assert graph is not None
    assert len(graph.phrases) > 50
    assert set(one) != set(other)
    run = measure_hotwords(recognizer, "tiny", 4, 2, 2)
    assert (run.beam, run.batch, run.calls, run.phrases) == (4, 2, 2, 100)
    assert run.known_ratio == pytest.approx(run.known_ms / run.without_ms, rel=0.01)
    assert run.new_ratio > 0
    assert run.spelling_ms > 0


def test_the_functions_that_take_the_time(recognizer: Recognizer) -> None:
    waveforms, profile = Corpus().batch(1, 0), cProfile.Profile()
    with profile:
        recognizer.transcribe(waveforms)
    found = gpu_benchmark._own_functions(profile, 1)
    assert "transcribe" in list(found)[:3]


def test_what_overlaps_counts_once() -> None:
    assert gpu_benchmark._union([("a", 0, 10), ("b", 5, 20), ("c", 30, 31)]) == 21
