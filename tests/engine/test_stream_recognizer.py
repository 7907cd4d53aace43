from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sherpa_onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.arrays import Floats, Ints
from moulin.audio.fbank import Fbank
from moulin.bundle.load import load_bundle
from moulin.bundle.spec import ModelSpec, OnnxModelSpec
from moulin.decoding.found import Found, Hypothesis
from moulin.decoding.options import METHODS, DecodingOptions, Method
from moulin.demo.files import DEMO_STREAMING_MODEL
from moulin.engine.host_stepper import HostStepper
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.engine.stream_runner import StreamRunner
from moulin.errors import AudioError, BundleError, EngineError, StreamsFull
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.wer import WordErrors, count_word_errors, digits_spelled_alike
from moulin.live_transcript import LiveTranscript, Segment, StreamUpdate
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.endpoint_rules import EndpointRules
from moulin.streaming.options import StreamOptions
from moulin.streaming.stream import Stream
from moulin.streaming.turns import Turns
from tests.bundle.damage import edit_onnx
from tests.bundles import BUNDLES, STREAMING
from tests.streaming.splits import EVERYTHING_AT_ONCE, SPLITS, pieces

from .onnxruntime.test_stream_runner import fix_batch

MAX_STREAMS = 4
CHUNK_320_MS = (5120,)


def beam_search(beam: int) -> DecodingOptions:
    return DecodingOptions("modified_beam_search", beam=beam)


OPTIONS = [
    StreamOptions(),
    StreamOptions(beam_search(4)),
    StreamOptions(beam_search(2), endpoint=False),
    StreamOptions(DecodingOptions(blank_penalty=-3.0), rules=EndpointRules(0.6, 0.3, 9.0)),
    StreamOptions(rules=EndpointRules(9.0, 9.0, 0.7)),
    StreamOptions(beam_search(4), rules=EndpointRules(0.5, 0.2, 0.9)),
]
NUM_CASES = len(OPTIONS)


def runner_of(recognizer: StreamRecognizer) -> StreamRunner:
    assert isinstance(recognizer.stepper, HostStepper)
    return recognizer.stepper.runner


def silence(duration_sec: float) -> Floats:
    return np.zeros(round(duration_sec * 16000), np.float32)


@dataclass(frozen=True)
class Heard:
    """The result of a stream: its segments, as tokens and as words."""

    hypotheses: tuple[Hypothesis, ...]
    segments: tuple[Segment, ...]
    text: str

    @property
    def tokens(self) -> list[tuple[int, int]]:
        """All tokens with their frames, whatever the segments."""
        return [pair for found in self.hypotheses for pair in zip(found.tokens, found.frames, strict=True)]

    def equals_but_for_rounding(self, other: Heard) -> bool:
        """Batches of other sizes multiply matrices in another order: confidences differ in their last digits."""
        return (
            [(found.tokens, found.frames) for found in self.hypotheses]
            == [(found.tokens, found.frames) for found in other.hypotheses]
            and [without_confidences(segment) for segment in self.segments]
            == [without_confidences(segment) for segment in other.segments]
            and self.text == other.text
        )


def without_confidences(segment: Segment) -> Segment:
    return replace(segment, words=tuple(replace(word, confidence=1.0) for word in segment.words))


def outcome(recognizer: StreamRecognizer, stream: Stream) -> Heard:
    """The result of a stream that has ended and of which no update was taken."""
    hypotheses = tuple(closed.hypothesis for closed in stream.unreported)
    update = recognizer.update(stream)
    assert update.is_final
    assert all(segment.is_final for segment in update.segments)
    return Heard(hypotheses, update.segments, recognizer.text(stream))


def hear(
    recognizer: StreamRecognizer,
    audio: Floats,
    options: StreamOptions | None = None,
    split: Sequence[int] = EVERYTHING_AT_ONCE,
) -> Heard:
    """The result of one stream by itself, stepped as soon as it is ready."""
    stream = recognizer.open(options)
    for piece in pieces(audio, split):
        recognizer.accept(stream, piece)
        while recognizer.is_ready(stream):
            recognizer.step([stream])
    recognizer.finish(stream)
    while recognizer.is_ready(stream):
        recognizer.step([stream])
    found = outcome(recognizer, stream)
    recognizer.close(stream)
    return found


def advance_together(recognizer: StreamRecognizer, streams: Sequence[Stream]) -> None:
    """Make all steps of all streams, in the largest batches."""
    while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
        recognizer.step(ready)


@pytest.fixture(scope="module")
def audios(clips: list[Floats], noises: list[Floats]) -> list[Floats]:
    """One to one and a half seconds each, some with a pause."""
    found = [
        clips[0][8_000:32_000],
        noises[0][:16_001],
        np.concatenate([clips[3][20_000:30_003], silence(0.5)]),
        np.concatenate([silence(0.3), noises[1][:8_001], silence(0.6)]),
        clips[5][10_000:33_333],
        np.concatenate([clips[6][12_000:20_000], silence(0.5), noises[1][:7_777]]),
    ]
    assert len(found) == NUM_CASES
    return found


class Cases:
    """A recognizer and its results for `audios[n]` with `OPTIONS[n]`."""

    def __init__(self, recognizer: StreamRecognizer, audios: list[Floats]) -> None:
        self.recognizer = recognizer
        self.audios = audios
        self.alone = [hear(recognizer, audio, options) for audio, options in zip(audios, OPTIONS, strict=True)]


@pytest.fixture(scope="module", params=STREAMING)
def cases(request: pytest.FixtureRequest, audios: list[Floats]) -> Cases:
    return Cases(
        open_stream_recognizer(BUNDLES / request.param, EngineChoice(threads=1), max_streams=MAX_STREAMS), audios
    )


@pytest.fixture(scope="module")
def demo() -> StreamRecognizer:
    return open_stream_recognizer(DEMO_STREAMING_MODEL, EngineChoice(threads=1), max_streams=14)


@pytest.fixture(scope="module")
def zipformer() -> StreamRecognizer:
    return open_stream_recognizer(BUNDLES / "zipformer-streaming", EngineChoice(threads=1), max_streams=MAX_STREAMS)


# ----------------------------------------------------------------------------------------------- any split, any company


@settings(max_examples=6, deadline=None)
@given(split=SPLITS, number=st.integers(0, NUM_CASES - 1))
def test_any_split_of_the_audio_is_heard_alike(cases: Cases, split: list[int], number: int) -> None:
    """Tokens, frames, words and their confidences, to the last digit."""
    assert hear(cases.recognizer, cases.audios[number], OPTIONS[number], split) == cases.alone[number]


def test_sample_by_sample(cases: Cases) -> None:
    assert hear(cases.recognizer, cases.audios[1], OPTIONS[1], (1,)) == cases.alone[1]


def test_the_cases_say_something(cases: Cases) -> None:
    """Results have tokens, in several segments where endpoints are asked for, so that equality means something."""
    assert sum(bool(heard.tokens) for heard in cases.alone) >= 5
    assert sum(len(heard.tokens) for heard in cases.alone) >= 50
    assert any(len(heard.segments) > 1 for heard in cases.alone)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_streams_in_any_company_hear_what_each_hears_alone(cases: Cases, seed: int) -> None:
    """Eight streams in four slots: they come, wait, step in random groups and go, and their slots are used again.

    Greedy and beam searches of several widths go through the same steps.
    """
    recognizer, rng = cases.recognizer, random.Random(seed)
    to_come = [rng.randrange(NUM_CASES) for _ in range(8)]
    streams: dict[Stream, int] = {}
    unsent: dict[Stream, list[Floats]] = {}
    while to_come or streams:
        if to_come and len(streams) < MAX_STREAMS and rng.random() < 0.5:
            stream = recognizer.open(OPTIONS[to_come[-1]])
            streams[stream] = to_come.pop()
            sizes = [rng.choice([0, 1, 161, 5120, rng.randrange(20_000)]) for _ in range(4)]
            unsent[stream] = list(pieces(cases.audios[streams[stream]], [*sizes, 9_000]))
        for stream in streams:
            if rng.random() < 0.7 and not recognizer.finished(stream):
                if unsent[stream]:
                    recognizer.accept(stream, unsent[stream].pop(0))
                else:
                    recognizer.finish(stream)
        ready = [stream for stream in streams if recognizer.is_ready(stream)]
        if ready:
            recognizer.step(rng.sample(ready, rng.randint(1, len(ready))))
        for stream in [stream for stream in streams if recognizer.ended(stream)]:
            number = streams.pop(stream)
            assert outcome(recognizer, stream).equals_but_for_rounding(cases.alone[number]), f"case {number}"
            recognizer.close(stream)
    assert recognizer.num_open == 0


def test_an_export_without_batches_takes_several_streams(cases: Cases, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(cases.recognizer.spec.path, tmp_path / "model"))
    edit_onnx(folder / cases.recognizer.spec.file.name, fix_batch)
    recognizer = open_stream_recognizer(folder, EngineChoice(threads=1), max_streams=NUM_CASES)
    assert isinstance(recognizer.spec, OnnxModelSpec)
    assert recognizer.spec.encoder.input("x", 0).shape[0] == 1
    streams = [recognizer.open(options) for options in OPTIONS]
    for stream, audio in zip(streams, cases.audios, strict=True):
        recognizer.accept(stream, audio)
        recognizer.finish(stream)
    advance_together(recognizer, streams)
    for number, stream in enumerate(streams):
        assert outcome(recognizer, stream).equals_but_for_rounding(cases.alone[number]), f"case {number}"


def test_an_abandoned_stream_leaves_a_clean_slot(cases: Cases) -> None:
    """Closed in the middle of a word, with audio waiting."""
    recognizer = cases.recognizer
    for number in (0, 1, 4):
        stream = recognizer.open(OPTIONS[number])
        recognizer.accept(stream, cases.audios[number])
        recognizer.step([stream])
        recognizer.close(stream)
        assert hear(recognizer, cases.audios[0], OPTIONS[0]) == cases.alone[0]


# ----------------------------------------------------------------------------------------------------- the real model


@pytest.fixture(scope="module")
def heard_in_clips(demo: StreamRecognizer, clips: list[Floats]) -> dict[Method, list[Heard]]:
    """All 14 recordings at once."""
    found = {}
    for method in METHODS:
        streams = [demo.open(StreamOptions(DecodingOptions(method))) for _ in clips]
        for stream, clip in zip(streams, clips, strict=True):
            demo.accept(stream, clip)
            demo.finish(stream)
        advance_together(demo, streams)
        found[method] = [outcome(demo, stream) for stream in streams]
        for stream in streams:
            demo.close(stream)
    return found


def word_errors(heard: Sequence[Heard]) -> WordErrors:
    total = WordErrors()
    for clip, found in zip(demo_clips(), heard, strict=True):
        total += count_word_errors(clip.text, found.text, normalize=digits_spelled_alike)
    return total


def test_word_errors_on_the_demo_recordings(heard_in_clips: dict[Method, list[Heard]]) -> None:
    """sherpa-onnx makes 18 errors with greedy search: 12.86 %."""
    total = word_errors(heard_in_clips["greedy"])
    assert total.words == 140
    assert total.errors <= 18
    assert word_errors(heard_in_clips["modified_beam_search"]).errors <= 18


def test_the_last_word_is_heard_where_a_recording_stops_with_it(
    demo: StreamRecognizer, clips: list[Floats], heard_in_clips: dict[Method, list[Heard]]
) -> None:
    """The last word comes with the silence that `finish` puts behind the audio, and not before."""
    for number in range(0, 14, 3):
        heard = heard_in_clips["greedy"][number]
        emitted_sec = (heard.hypotheses[-1].frames[-1] + 1) * 0.04
        stream = demo.open()
        demo.accept(stream, clips[number][: round((emitted_sec + 0.1) * 16000)])
        demo.advance(stream)
        before = demo.text(stream)
        demo.finish(stream)
        demo.advance(stream)
        assert demo.text(stream) == heard.text
        assert len(before.split()) < len(heard.text.split())
        assert heard.text.startswith(before)
        demo.close(stream)


def test_features_are_those_that_the_model_was_trained_on(demo: StreamRecognizer, clips: list[Floats]) -> None:
    """The encoder's first window is the beginning of the offline features."""
    seen: list[Floats] = []

    class Watching:
        def encoder(self, x: Floats, slots: Ints) -> Floats:
            seen.append(x)
            return runner.encoder(x, slots)

        def __getattr__(self, name: str) -> Any:
            return getattr(runner, name)

    runner = runner_of(demo)
    watching = StreamRecognizer(demo.spec, HostStepper(demo.spec, Watching()))
    stream = watching.open()
    watching.accept(stream, clips[0][:16_000])
    watching.advance(stream)
    features = Fbank()(clips[0][:16_000])
    np.testing.assert_allclose(np.concatenate(seen), [features[:45], features[32:77]], rtol=0, atol=2e-3)


def test_words_are_in_time_and_in_the_text(heard_in_clips: dict[Method, list[Heard]], clips: list[Floats]) -> None:
    for method in METHODS:
        for clip, heard in zip(clips, heard_in_clips[method], strict=True):
            check_words(heard.segments, heard.text, len(clip) / 16000)


def test_words_of_random_models_are_in_time_and_in_the_text(cases: Cases) -> None:
    """Random models emit tokens to the end of the tail, which is behind the audio."""
    for audio, heard in zip(cases.audios, cases.alone, strict=True):
        check_words(heard.segments, heard.text, len(audio) / 16000)


def check_words(segments: Sequence[Segment], text: str, duration_sec: float) -> None:
    words = [word for segment in segments for word in segment.words]
    assert [word.word for word in words] == text.split()
    for word in words:
        assert 0 <= word.start_sec <= word.end_sec <= round(duration_sec, 3)
        assert 0 < word.confidence <= 1
    for word, following in itertools.pairwise(words):
        assert word.start_sec <= following.start_sec
        assert word.end_sec <= following.end_sec


# ---------------------------------------------------------------------------------------------------------- endpoints

OUT_OF_REACH = 300.0


@dataclass(frozen=True)
class Endpoint:
    step: int
    said: str


def our_endpoints(recognizer: StreamRecognizer, audio: Floats, rules: EndpointRules) -> list[Endpoint]:
    stream = recognizer.open(StreamOptions(rules=rules))
    recognizer.accept(stream, audio)
    found, steps = [], 0
    while recognizer.is_ready(stream):
        recognizer.step([stream])
        steps += 1
        update = recognizer.update(stream)
        closed = [segment.text for segment in update.segments if segment.is_final]
        assert len(closed) <= update.endpoint, "a segment closes at an endpoint"
        if update.endpoint:
            found.append(Endpoint(steps, "".join(closed)))
    recognizer.close(stream)
    return found


def sherpas_endpoints(spec: ModelSpec, audio: Floats, rules: EndpointRules) -> list[Endpoint]:
    assert isinstance(spec, OnnxModelSpec)
    recognizer: Any = sherpa_onnx.OnlineRecognizer.from_transducer(
        encoder=str(spec.files.encoder),
        decoder=str(spec.files.decoder),
        joiner=str(spec.files.joiner),
        tokens=str(spec.files.tokens),
        num_threads=1,
        enable_endpoint_detection=True,
        rule1_min_trailing_silence=rules.rule1_min_trailing_silence_sec,
        rule2_min_trailing_silence=rules.rule2_min_trailing_silence_sec,
        rule3_min_utterance_length=rules.rule3_min_utterance_length_sec,
    )
    stream = recognizer.create_stream()
    # It waits for one frame more than the window has.
    stream.accept_waveform(16000, np.concatenate([audio, silence(0.01)]))
    found, steps = [], 0
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
        steps += 1
        if recognizer.is_endpoint(stream):
            found.append(Endpoint(steps, "".join(recognizer.tokens(stream)).strip()))
            recognizer.reset(stream)
    return found


@pytest.mark.parametrize(
    "rules",
    [
        EndpointRules(2.39, 1.19, 19.99),
        EndpointRules(OUT_OF_REACH, 0.51, OUT_OF_REACH),
        EndpointRules(0.91, OUT_OF_REACH, OUT_OF_REACH),
    ],
    ids=["nearly the default", "rule 2", "rule 1"],
)
def test_pauses_are_those_of_sherpa_onnx(demo: StreamRecognizer, clips: list[Floats], rules: EndpointRules) -> None:
    """Endpoints come after the same steps, and with the same words before them until the first empty segment, after
    which our search starts anew.

    Times are no multiples of 40 ms, because sherpa-onnx counts in float32, where 120 frames of 0.01 s are less than
    1.2 s.
    """
    audio = np.concatenate([clips[0], silence(1.5), clips[6][:50_000], silence(1.0), clips[9][20_000:], silence(6.0)])
    found = our_endpoints(demo, audio, rules)
    assert len(found) >= 3
    theirs = sherpas_endpoints(demo.spec, audio, rules)
    assert [endpoint.step for endpoint in found] == [endpoint.step for endpoint in theirs]
    up_to_the_first_empty = next((n for n, endpoint in enumerate(found) if not endpoint.said), len(found))
    assert found[:up_to_the_first_empty] == theirs[:up_to_the_first_empty]


def test_in_silence_rule_1_fires_again_and_again(demo: StreamRecognizer) -> None:
    """Every 2.4 s, when the chunk that reaches it has been heard; no segment comes of it."""
    found = our_endpoints(demo, silence(8.0), EndpointRules())
    assert found == [Endpoint(8, ""), Endpoint(16, ""), Endpoint(24, "")]
    assert found == sherpas_endpoints(demo.spec, silence(8.0), EndpointRules())


def test_rule_3_fires_when_sherpa_onnx_s_does(demo: StreamRecognizer, clips: list[Floats]) -> None:
    """sherpa-onnx closes the whole segment; ours leaves the last word, which may be unfinished, to the next one."""
    rules = EndpointRules(OUT_OF_REACH, OUT_OF_REACH, 3.0)
    audio = np.concatenate([clips[0], clips[6]])
    ours, theirs = our_endpoints(demo, audio, rules), sherpas_endpoints(demo.spec, audio, rules)
    assert len(ours) >= 4
    assert [endpoint.step for endpoint in ours] == [endpoint.step for endpoint in theirs]


@pytest.mark.parametrize("method", METHODS)
def test_rule_3_moves_the_last_word_into_the_next_segment(
    demo: StreamRecognizer, clips: list[Floats], method: Method
) -> None:
    rules = EndpointRules(OUT_OF_REACH, OUT_OF_REACH, 1.3)
    stream = demo.open(StreamOptions(DecodingOptions(method), rules=rules))
    demo.accept(stream, clips[6])
    moved = 0
    while demo.is_ready(stream):
        before = stream.closed_text
        demo.step([stream])
        said = demo.text(stream).removeprefix(before).split()
        update = demo.update(stream)
        if update.endpoint and len(said) > 1:
            closed, still_open = update.segments
            assert (closed.is_final, still_open.is_final) == (True, False)
            assert closed.text.split() == said[:-1]
            assert still_open.text == said[-1]
            assert still_open.words[0].start_sec >= closed.words[-1].end_sec - 0.04
            moved += 1
    assert moved >= 2
    demo.close(stream)


def test_rule_3_closes_a_segment_of_one_word(demo: StreamRecognizer, clips: list[Floats]) -> None:
    """Were that word moved to the next segment too, no text would ever be final."""
    stream = demo.open(StreamOptions(rules=EndpointRules(OUT_OF_REACH, OUT_OF_REACH, 0.95)))
    demo.accept(stream, clips[0])
    for _ in range(3):
        demo.step([stream])
    assert demo.text(stream) == "ONE"
    update = demo.update(stream)
    assert update.endpoint
    assert [(segment.text, segment.is_final) for segment in update.segments] == [("ONE", True)]
    demo.close(stream)


def test_rule_3_never_cuts_a_word_in_two(
    demo: StreamRecognizer, clips: list[Floats], heard_in_clips: dict[Method, list[Heard]]
) -> None:
    """Words stay whole however short the segments are. Closing them with half a word makes two of it: FI VE."""
    for number, limit_sec in ((0, 1.0), (6, 0.9), (7, 1.3), (9, 2.0)):
        rules = EndpointRules(OUT_OF_REACH, OUT_OF_REACH, limit_sec)
        heard = hear(demo, clips[number], StreamOptions(rules=rules))
        assert heard.text == heard_in_clips["greedy"][number].text
        assert len(heard.segments) > 3


def test_cutting_a_long_segment_changes_no_token(cases: Cases) -> None:
    """Rule 3 closes a segment amid speech: the encoder and the search go on."""
    num_segments = 0
    for audio in cases.audios:
        plain = hear(cases.recognizer, audio, StreamOptions(endpoint=False))
        cut = hear(cases.recognizer, audio, StreamOptions(rules=EndpointRules(100.0, 100.0, 0.8)))
        assert cut.tokens == plain.tokens
        assert len(plain.segments) <= 1
        num_segments += len(cut.segments)
    assert num_segments > len(cases.audios)


def test_a_long_silence_starts_the_search_anew(demo: StreamRecognizer, clips: list[Floats]) -> None:
    """A segment with words closes and leaves the decoder's context; one without any does not. Times go on."""
    stepper = demo.stepper
    beginnings: list[bool] = []

    class Watching:
        def step(self, turns: Turns) -> Found:
            beginnings.extend(turns.continuation.fresh.tolist())
            return stepper.step(turns)

        def __getattr__(self, name: str) -> Any:
            return getattr(stepper, name)

    watching = StreamRecognizer(demo.spec, Watching())
    stream = watching.open()
    for seconds, is_fresh in ((2.0, False), (2.4, True)):
        watching.accept(stream, np.concatenate([clips[6] if not is_fresh else silence(0), silence(seconds)]))
        assert watching.advance(stream).endpoint
        watching.accept(stream, silence(0.32))
        watching.advance(stream)
        assert beginnings[0], "the stream's first step"
        assert any(beginnings[1:]) == is_fresh
    watching.accept(stream, clips[6])
    watching.finish(stream)
    after = watching.advance(stream).segments[-1]
    assert after.words[0].start_sec > len(clips[6]) / 16000 + 4.4
    watching.close(stream)


def test_endpoints_may_be_off(demo: StreamRecognizer) -> None:
    stream = demo.open(StreamOptions(endpoint=False))
    demo.accept(stream, silence(8.0))
    assert not demo.advance(stream).endpoint
    demo.close(stream)


def test_the_end_of_a_stream_is_no_endpoint(demo: StreamRecognizer, clips: list[Floats]) -> None:
    stream = demo.open()
    demo.accept(stream, clips[6][:40_000])
    demo.advance(stream)
    demo.finish(stream)
    update = demo.advance(stream)
    assert (update.endpoint, update.is_final) == (False, True)
    demo.close(stream)


# ------------------------------------------------------------------------------------------------------------ updates


@settings(max_examples=6, deadline=None)
@given(split=SPLITS, number=st.integers(0, NUM_CASES - 1))
def test_updates_put_together_are_the_whole(cases: Cases, split: list[int], number: int) -> None:
    """Updates may be taken at any moment and any number of times."""
    recognizer, audio = cases.recognizer, cases.audios[number]
    stream = recognizer.open(OPTIONS[number])
    live = LiveTranscript()
    settled: list[Segment] = []

    def follow(update: StreamUpdate) -> None:
        live.apply(update)
        assert live.text == recognizer.text(stream)
        assert live.final[: len(settled)] == settled, "what is final never changes"
        settled[:] = live.final
        numbers = [segment.number for segment in live.final] + ([live.open.number] if live.open else [])
        assert numbers == list(range(len(numbers)))
        assert all(segment.words for segment in live.final)
        assert update.duration_sec == round(recognizer.duration_sec(stream), 3)
        again = recognizer.update(stream)
        assert not any(segment.is_final for segment in again.segments), "a closed segment is told once"
        assert again.segments == tuple(segment for segment in update.segments if not segment.is_final)
        assert not again.endpoint

    for piece in pieces(audio, split):
        recognizer.accept(stream, piece)
        update = recognizer.advance(stream)
        assert not update.is_final
        follow(update)
    recognizer.finish(stream)
    update = recognizer.advance(stream)
    follow(update)
    assert update.is_final
    assert live.open is None
    assert tuple(live.final) == cases.alone[number].segments
    assert live.text == cases.alone[number].text
    assert live.duration_sec == round(len(audio) / 16000, 3)
    recognizer.close(stream)


@pytest.mark.parametrize("num_samples", [0, 1, 79, 80, 1600])
def test_very_short_streams(cases: Cases, num_samples: int) -> None:
    heard = hear(cases.recognizer, np.full(num_samples, 0.1, np.float32))
    if num_samples == 0:
        assert heard == Heard((), (), "")
    check_words(heard.segments, heard.text, num_samples / 16000)


def test_a_stream_that_never_had_audio_ends_at_once(zipformer: StreamRecognizer) -> None:
    stream = zipformer.open()
    assert zipformer.advance(stream) == StreamUpdate((), False, False, 0.0)
    zipformer.accept(stream, np.zeros(0, np.float32))
    assert not zipformer.is_ready(stream)
    zipformer.finish(stream)
    assert zipformer.advance(stream) == StreamUpdate((), False, True, 0.0)
    zipformer.close(stream)


def test_a_stream_longer_than_the_encoders_memory(zipformer: StreamRecognizer, clips: list[Floats]) -> None:
    """Half a minute in one go equals half a minute in pieces, and past audio is not kept."""
    audio = np.concatenate(clips[:4])
    whole = hear(zipformer, audio)
    assert hear(zipformer, audio, split=(16_000, 3)) == whole
    assert len(whole.tokens) > 100
    assert len(whole.segments) > 1


# --------------------------------------------------------------------------------------------------- slots and options


def test_a_full_pool_says_its_limit_and_has_room_again(zipformer: StreamRecognizer, audios: list[Floats]) -> None:
    streams = [zipformer.open() for _ in range(MAX_STREAMS)]
    assert zipformer.num_open == MAX_STREAMS
    with pytest.raises(StreamsFull, match=f"All {MAX_STREAMS} streams are in use"):
        zipformer.open()
    zipformer.close(streams.pop())
    assert hear(zipformer, audios[0]).text
    for stream in streams:
        zipformer.close(stream)
    assert zipformer.num_open == 0


def test_many_short_streams_leave_nothing_behind(zipformer: StreamRecognizer, audios: list[Floats]) -> None:
    for _ in range(100):
        stream = zipformer.open()
        zipformer.accept(stream, audios[0][:8000])
        zipformer.advance(stream)
        zipformer.close(stream)
    assert zipformer.num_open == 0


def test_warming_up_leaves_no_stream_open_and_no_trace(zipformer: StreamRecognizer, audios: list[Floats]) -> None:
    before = hear(zipformer, audios[0])
    zipformer.warm_up()
    assert zipformer.num_open == 0
    assert hear(zipformer, audios[0]) == before


def test_the_recognizers_own_options_are_the_default(audios: list[Floats]) -> None:
    options = StreamOptions(beam_search(3), rules=EndpointRules(0.4, 0.3, 0.6))
    own = open_stream_recognizer(BUNDLES / "zipformer2-streaming", options=options, max_streams=1)
    assert hear(own, audios[0]) == hear(own, audios[0], options) != hear(own, audios[0], StreamOptions())


def test_an_offline_model_is_refused() -> None:
    with pytest.raises(BundleError, match="Expected a streaming model, got the offline conformer"):
        open_stream_recognizer(BUNDLES / "conformer-offline")
    runner: Any = None
    with pytest.raises(BundleError, match="Expected a streaming model, got the offline conformer"):
        StreamRecognizer(
            load_bundle(BUNDLES / "conformer-offline"), HostStepper(load_bundle(BUNDLES / "conformer-offline"), runner)
        )


def test_opening_passes_its_options_on() -> None:
    with open_stream_recognizer(
        BUNDLES / "lstm-streaming", EngineChoice(threads=3, workers=2), max_streams=7, max_batch=5
    ) as recognizer:
        assert isinstance(runner_of(recognizer), OnnxRuntimeStreamRunner)
        assert recognizer.limits == StepLimits(capacity=7, max_batch=5, num_workers=2)


# ------------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize(
    ("samples", "match"),
    [
        (np.array([0.0, np.nan], np.float32), "expected finite samples, got nan at sample 1"),
        (np.full(1600, 12_000.0, np.float32), r"expected floats in \[-1, 1\], got a peak of 12000"),
        (np.zeros((2, 1600), np.float32), r"shape \[2, 1600\]"),
        (np.zeros(1600, np.int32), "got int32"),
    ],
)
def test_what_is_no_audio_is_refused_and_changes_nothing(
    zipformer: StreamRecognizer, audios: list[Floats], samples: Floats, match: str
) -> None:
    wanted = hear(zipformer, audios[0])
    stream = zipformer.open()
    for piece in pieces(audios[0], (3000,)):
        with pytest.raises(AudioError, match=match):
            zipformer.accept(stream, samples)
        zipformer.accept(stream, piece)
    zipformer.finish(stream)
    while zipformer.is_ready(stream):
        zipformer.step([stream])
    assert outcome(zipformer, stream) == wanted
    zipformer.close(stream)


def test_sixteen_bit_samples_are_the_same_audio(zipformer: StreamRecognizer, audios: list[Floats]) -> None:
    integers: Any = np.round(audios[0] * 32768).astype(np.int16)
    assert hear(zipformer, integers, split=CHUNK_320_MS) == hear(zipformer, audios[0], split=CHUNK_320_MS)


def test_a_step_that_fails_raises_and_other_streams_go_on(
    zipformer: StreamRecognizer, audios: list[Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = hear(zipformer, audios[1])
    failing, healthy = zipformer.open(), zipformer.open()
    for stream in (failing, healthy):
        zipformer.accept(stream, audios[1])
        zipformer.finish(stream)

    def broken(*_: Any, **__: Any) -> Floats:
        raise EngineError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(runner_of(zipformer), "encoder", broken)
        with pytest.raises(EngineError, match="out of memory"):
            zipformer.step([failing])
    zipformer.close(failing)
    while zipformer.is_ready(healthy):
        zipformer.step([healthy])
    assert outcome(zipformer, healthy) == wanted
    zipformer.close(healthy)


def test_a_discarded_stream_has_ended(zipformer: StreamRecognizer, audios: list[Floats]) -> None:
    """The text of a discarded stream is final, and the rest of its audio is not decoded."""
    stream = zipformer.open()
    zipformer.accept(stream, audios[0])
    zipformer.step([stream])
    zipformer.discard(stream)
    assert not zipformer.is_ready(stream)
    assert zipformer.advance(stream).is_final
    zipformer.close(stream)
