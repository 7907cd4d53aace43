"""Our offline GPU engine in process, by parts: waveforms in host memory to transcripts with word times."""

from __future__ import annotations

import cProfile
import gc
import pstats
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.audio.waveform import SAMPLE_RATE
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.engine.recognizer import Recognizer
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.results.gpu_engine import (
    Breakdown,
    Calls,
    HotwordsRun,
    KernelRun,
    MemoryRun,
    OptionsRun,
    PipelineRun,
)

GREEDY = DecodingOptions()
WARMUP_PASSES = 3
"""Passes after which every size of batch has its graph."""

_LONGEST_SEC = 20.0
_CALLS = 12
_OPTIONS_CLIPS = 14
_PHRASES, _NEW_LISTS = 100, 4
_MIXED_BEAMS = (0, 2, 3, 4, 5, 6, 8)
"""Beams of the sets of options; 0 is greedy search."""


class Corpus:
    """Utterances of 2 to 20 s, cut out of the demo recordings at random."""

    def __init__(self) -> None:
        whole = np.concatenate([read_audio(clip.audio) for clip in demo_clips()])
        self._recordings = np.concatenate([whole, whole])

    def batch(self, count: int, seed: int) -> list[Floats]:
        """`count` utterances, float32 [n] each."""
        random = np.random.default_rng(seed)
        lengths = (random.uniform(2, _LONGEST_SEC, count) * SAMPLE_RATE).astype(int)
        starts = random.integers(0, len(self._recordings) // 2, count)
        return [self._recordings[at : at + length].copy() for at, length in zip(starts, lengths, strict=True)]

    def of_length(self, count: int, num_samples: int) -> list[Floats]:
        """`count` different utterances of one length."""
        return [self._recordings[at : at + num_samples].copy() for at in range(0, count * 160, 160)]


def measure_pipeline(
    recognizer: Recognizer, size: str, options: DecodingOptions, batch: int, calls: int
) -> PipelineRun:
    """Measure calls of `batch` utterances, one after the other, as float32 and as int16."""
    floats = [Corpus().batch(batch, seed) for seed in range(calls)]
    ints: list[list[Any]] = [[(samples * 32767).astype(np.int16) for samples in one] for one in floats]
    measured = [_calls(recognizer, batches, options) for batches in (floats, ints)]
    return PipelineRun(size, options.method, options.beam, batch, calls, *measured)


def measure_options(recognizer: Recognizer, size: str) -> OptionsRun:
    """Measure 14 utterances with the options of the largest beam, and with a set of options for each, by turns."""
    waveforms = Corpus().batch(_OPTIONS_CLIPS, 7)
    mixed = [_mixed(number) for number in range(_OPTIONS_CLIPS)]
    equal = [max(mixed, key=lambda it: it.beam if it.method != "greedy" else 0)] * _OPTIONS_CLIPS
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(WARMUP_PASSES + _CALLS):
        for is_mixed, options in ((False, equal), (True, mixed)):
            begin = time.perf_counter()
            recognizer.transcribe(waveforms, options)
            if turn >= WARMUP_PASSES:
                seconds[is_mixed].append(time.perf_counter() - begin)
    equal_ms, mixed_ms = (round(1e3 * statistics.median(seconds[which]), 2) for which in (False, True))
    return OptionsRun(size, _OPTIONS_CLIPS, equal_ms, mixed_ms, round(mixed_ms / equal_ms, 3))


def measure_hotwords(recognizer: Recognizer, size: str, beam: int, batch: int, calls: int) -> HotwordsRun:
    """Measure calls of `batch` utterances with a list of hotwords for each, and without."""
    plain = DecodingOptions("modified_beam_search", beam=beam)
    random = np.random.default_rng(0)
    waveforms = [Corpus().batch(batch, seed) for seed in range(calls)]

    def listed() -> list[DecodingOptions]:
        return [replace(plain, hotwords=_phrases(recognizer, random)) for _ in range(batch)]

    def call_ms(some: Sequence[Floats], options: Sequence[DecodingOptions]) -> float:
        begin = time.perf_counter()
        recognizer.transcribe(some, options)
        return 1e3 * (time.perf_counter() - begin)

    known, without = listed(), [plain] * batch
    with_known: list[tuple[float, float]] = []
    for turn in range(WARMUP_PASSES + _CALLS):
        each = [[call_ms(some, options) for some in waveforms] for options in (without, known)]
        if turn >= WARMUP_PASSES:
            with_known.append((statistics.fmean(each[0]), statistics.fmean(each[1])))
    with_new, spelling_ms = [], []
    for some in waveforms[:_NEW_LISTS]:
        new, begin = listed(), time.perf_counter()
        for options in new:
            recognizer.graphs(options)
        spelling_ms.append(1e3 * (time.perf_counter() - begin))
        with_new.append((call_ms(some, without), call_ms(some, new)))
    return HotwordsRun(
        size,
        beam,
        batch,
        calls,
        phrases=_PHRASES,
        without_ms=round(statistics.median(less for less, _ in with_known), 2),
        known_ms=round(statistics.median(more for _, more in with_known), 2),
        known_ratio=round(statistics.median(more / less for less, more in with_known), 3),
        new_ms=round(statistics.median(more for _, more in with_new), 2),
        new_ratio=round(statistics.median(more / less for less, more in with_new), 3),
        spelling_ms=round(statistics.median(spelling_ms), 1),
        search_us=_kernel_us(recognizer, waveforms[0], without, "beam"),
        search_with_us=_kernel_us(recognizer, waveforms[0], known, "beam"),
    )


def _phrases(recognizer: Recognizer, random: np.random.Generator) -> tuple[Hotword, ...]:
    """A list of phrases of two to six of the model's tokens."""
    tokens = recognizer.spec.tokens
    drawn = random.integers(1, len(tokens), (_PHRASES, 6))
    some = [[token for token in row if tokens.is_text(token)] for row in drawn.tolist()]
    texts = [tokens.text(row[: 2 + number % 5]).strip() for number, row in enumerate(some)]
    return tuple(Hotword(text, optional=True) for text in texts if text)


def measure_search(
    recognizer: Recognizer, size: str, options: DecodingOptions, batches: Sequence[int], audio_sec: float
) -> Iterator[KernelRun]:
    """Measure the kernels of the search in a call of utterances of one length."""
    named = "greedy" if options.method == "greedy" else "beam"
    for batch in batches:
        waveforms = Corpus().of_length(batch, round(audio_sec * SAMPLE_RATE))
        chosen = [options] * batch
        for _ in range(WARMUP_PASSES):
            recognizer.transcribe(waveforms, chosen)
        us = _kernel_us(recognizer, waveforms, chosen, named)
        frames = round(audio_sec / recognizer.spec.encoder_frame_sec)
        yield KernelRun(size, options.method, options.beam, batch, frames, us)


def _kernel_us(
    recognizer: Recognizer, waveforms: Sequence[Floats], options: Sequence[DecodingOptions], named: str
) -> float:
    """Microseconds of the GPU's kernels with this in their names, the median of some calls."""
    us = []
    for _ in range(_CALLS):
        spans = gpu_spans(lambda: recognizer.transcribe(waveforms, options))
        us.append(sum(end - start for name, start, end in spans if named in name.lower()))
    return round(statistics.median(us), 1)


def measure_breakdown(recognizer: Recognizer, size: str) -> Breakdown:
    """Measure the calling thread's time in a call of 256 utterances: moulin's functions that take a twentieth of it,
    with those that they call, by the profiler, which itself costs a little."""
    batches = [Corpus().batch(256, seed) for seed in range(4)]
    options = [GREEDY] * 256
    plain = _calls(recognizer, batches, GREEDY)
    profile = cProfile.Profile()
    with profile:
        for one in batches:
            recognizer.transcribe(one, options)
    busy = gpu_spans(lambda: recognizer.transcribe(batches[0], options))
    return Breakdown(size, plain.rtfx, _own_functions(profile, len(batches)), round(_union(busy) / 1e3, 2))


def measure_memory(
    recognizer: Recognizer, size: str, utterances: int, say: Callable[[str], None] = lambda _: None
) -> MemoryRun:
    """Measure the GPU's memory after every tenth of so many utterances, all in new batches."""
    corpus, options = Corpus(), [GREEDY] * 256
    reserved, begin, seconds = [], time.perf_counter(), 0.0
    for number in range(utterances // 256):
        some = corpus.batch(256, 1000 + number)
        seconds += sum(map(len, some)) / SAMPLE_RATE
        recognizer.transcribe(some, options)
        if number % max(1, utterances // 2560) == 0:
            reserved.append(round(torch.cuda.memory_reserved() / 2**20))
            say(f"{size}: {(number + 1) * 256} utterances, {reserved[-1]} MiB")
    rtfx = seconds / (time.perf_counter() - begin)
    return MemoryRun(utterances // 256 * 256, reserved, rtfx)


def gpu_spans(work: Callable[[], object]) -> list[tuple[str, float, float]]:
    """(name, begin, end) in microseconds of each kernel and copy of the GPU during `work`."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    return [
        (event.name, event.time_range.start, event.time_range.end)
        for event in profile.events() or []
        if event.device_type.name == "CUDA"
    ]


def _calls(recognizer: Recognizer, batches: Sequence[Sequence[Floats]], options: DecodingOptions) -> Calls:
    for _ in range(WARMUP_PASSES):
        for one in batches:
            recognizer.transcribe(one, [options] * len(one))
    seconds = []
    gc.collect()
    for one in batches:
        begin = time.perf_counter()
        recognizer.transcribe(one, [options] * len(one))
        seconds.append(time.perf_counter() - begin)
    audio_sec = sum(len(samples) for one in batches for samples in one) / SAMPLE_RATE
    return Calls(audio_sec / sum(seconds), [round(1e3 * sec, 2) for sec in seconds])


def _mixed(number: int) -> DecodingOptions:
    """The set of options `number`: each differs from the others in beam, temperature or blank penalty."""
    options = DecodingOptions(temperature=1 + 0.05 * number, blank_penalty=0.1 * (number % 3))
    beam = _MIXED_BEAMS[number % len(_MIXED_BEAMS)]
    return replace(options, method="modified_beam_search", beam=beam) if beam else options


def _own_functions(profile: cProfile.Profile, calls: int) -> dict[str, float]:
    """Milliseconds a call in functions of moulin, by name, those that take a twentieth of the longest."""
    package, here = (f"{folder}/" for folder in (Path(__file__).parents[1], Path(__file__).parent))
    found: dict[str, float] = {}
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (file, _, name), (_, _, _, cumulative_sec, _) in stats.items():
        if file.startswith(package) and not file.startswith(here) and not name.startswith("<"):
            found[name] = max(found.get(name, 0.0), 1e3 * cumulative_sec / calls)
    longest = max(found.values(), default=0.0)
    return {name: round(ms, 2) for name, ms in sorted(found.items(), key=lambda it: -it[1]) if ms > longest / 20}


def _union(spans: Sequence[tuple[str, float, float]]) -> float:
    """The time during which at least one of `spans` is under way."""
    busy, until = 0.0, 0.0
    for _, start, end in sorted(spans, key=lambda span: span[1]):
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return busy
