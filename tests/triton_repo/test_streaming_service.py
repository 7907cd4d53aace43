"""`StreamingService` without Triton: what it answers, in which order, and when streams are open."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.engine.host_stepper import HostStepper
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import AudioError, EngineError, MoulinError, OptionsError, StreamError, StreamsFull
from moulin.live_transcript import LiveTranscript
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from moulin.triton_repo.streaming_service import MAX_CHUNK_SEC, StreamingService, StreamReply
from tests.bundles import BUNDLES

from .fake_stream_runner import (
    CHUNK_SAMPLES,
    SPEC,
    WINDOW_SAMPLES,
    Answer,
    Clock,
    FakeStreamRunner,
    heard_alone,
    send,
    stream_request,
)

AUDIO = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
OTHER_AUDIO = np.random.default_rng(1).normal(0, 0.1, 16000).astype(np.float32)
NOTHING = np.zeros(0, np.float32)
IDLE_TIMEOUT_SEC = 15.0


@pytest.fixture
def runner() -> FakeStreamRunner:
    return FakeStreamRunner()


@pytest.fixture
def recognizer(runner: FakeStreamRunner) -> StreamRecognizer:
    return StreamRecognizer(SPEC, HostStepper(SPEC, runner))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(recognizer: StreamRecognizer, clock: Clock) -> Iterator[StreamingService]:
    running = StreamingService(recognizer, idle_timeout_sec=IDLE_TIMEOUT_SEC, clock=clock)
    yield running
    running.close()
    assert running.num_open == 0


def _alone(samples: Floats, *, finish: bool = True) -> str:
    return heard_alone(StreamRecognizer(SPEC, HostStepper(SPEC, FakeStreamRunner(1))), samples, finish=finish)


def _pieces(samples: Floats, size: int) -> list[Floats]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]


# ------------------------------------------------------------------------------------- what a stream is answered


@pytest.mark.parametrize("size", [1, 80, 160, 639, 640, 5120, 16000])
def test_any_size_of_pieces_gives_the_same_text(service: StreamingService, size: int) -> None:
    audio = AUDIO[:4000] if size == 1 else AUDIO
    pieces = _pieces(audio, size)
    texts = [
        send(service, 7, piece, start=number == 0, end=number == len(pieces) - 1).text
        for number, piece in enumerate(pieces)
    ]
    assert texts[-1] == _alone(audio)
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert service.num_open == 0


def test_each_answer_has_all_that_its_audio_is_enough_for(service: StreamingService) -> None:
    assert send(service, 1, AUDIO[: WINDOW_SAMPLES - 1], start=True).text == ""
    assert send(service, 1, AUDIO[WINDOW_SAMPLES - 1 : WINDOW_SAMPLES]).text != ""
    heard = WINDOW_SAMPLES + 3 * CHUNK_SAMPLES
    assert send(service, 1, AUDIO[WINDOW_SAMPLES:heard]).text == _alone(AUDIO[:heard], finish=False)
    assert send(service, 1, NOTHING).text == _alone(AUDIO[:heard], finish=False)
    assert send(service, 1, NOTHING, end=True).text == _alone(AUDIO[:heard])


@pytest.mark.parametrize("num_samples", [0, 1, 400, 1559, 1560, 16000])
def test_a_stream_may_start_and_end_with_one_request(service: StreamingService, num_samples: int) -> None:
    assert send(service, 1, AUDIO[:num_samples], start=True, end=True).text == _alone(AUDIO[:num_samples])
    assert service.num_open == 0


def test_empty_requests_are_welcome_anywhere(service: StreamingService) -> None:
    assert send(service, 1, NOTHING, start=True).text == ""
    assert send(service, 1, NOTHING).text == ""
    send(service, 1, AUDIO)
    assert send(service, 1, NOTHING, end=True).text == _alone(AUDIO)


def test_audio_behind_wav_lens_is_not_heard(service: StreamingService) -> None:
    """The last chunk of sherpa's clients is padded; what is behind its length need not even be audio."""
    padded = np.full((1, 10_240), np.nan, np.float32)
    padded[0, :5000] = AUDIO[:5000]
    assert send(service, 1, AUDIO, start=True, end=True, wav=padded, wav_lens=[[5000]]).text == _alone(AUDIO[:5000])


def test_numbers_and_strings_are_different_ids(service: StreamingService) -> None:
    """As for Triton, which knows both kinds of sequence_id."""
    for stream_id, audio in ((5, AUDIO), ("5", OTHER_AUDIO)):
        assert send(service, stream_id, audio, start=True).text == _alone(audio, finish=False)
    assert service.num_open == 2
    for stream_id, audio in ((5, AUDIO), ("5", OTHER_AUDIO)):
        assert send(service, stream_id, NOTHING, end=True).text == _alone(audio)


def test_an_update_comes_where_it_is_asked_for(service: StreamingService) -> None:
    assert send(service, 1, AUDIO[:4000], start=True).reply.update is None
    transcript = LiveTranscript()
    for start in range(4000, 16000, 3000):
        reply = send(service, 1, AUDIO[start : start + 3000], wants_update=True).reply
        assert reply.update is not None
        transcript.apply(reply.update)
        assert transcript.text == reply.text
        assert not reply.update.is_final
    reply = send(service, 1, NOTHING, end=True, wants_update=True).reply
    assert reply.update is not None
    assert reply.update.is_final
    assert (reply.text, reply.update.duration_sec) == (_alone(AUDIO), 1.0)


def test_options_hold_for_the_whole_stream_and_no_other(service: StreamingService, runner: FakeStreamRunner) -> None:
    options = b'{"method": "modified_beam_search", "beam": 2, "blank_penalty": -100}'
    with runner.held():
        quiet = send(service, 1, AUDIO, start=True, options=options)
        loud = send(service, 2, AUDIO, start=True)
    assert (quiet.text, loud.text) == ("", _alone(AUDIO, finish=False))
    assert send(service, 1, AUDIO, options=options).text == "", "the same options again change nothing"
    assert send(service, 1, AUDIO, end=True).text == ""


def test_options_of_a_stream_go_on_top_of_the_services() -> None:
    ours = StreamOptions().updated({"blank_penalty": -100.0})
    service = StreamingService(StreamRecognizer(SPEC, HostStepper(SPEC, FakeStreamRunner()), options=ours))
    try:
        assert send(service, 1, AUDIO, start=True, end=True, options=b"").text == ""
        assert send(service, 1, AUDIO, start=True, end=True, options=b'{"method": "greedy"}').text == ""
        assert send(service, 1, AUDIO, start=True, end=True, options=b'{"blank_penalty": 0}').text == _alone(AUDIO)
    finally:
        service.close()


# --------------------------------------------------------------------------------------------- several requests


def test_requests_sent_without_waiting_are_answered_in_their_order(
    service: StreamingService, runner: FakeStreamRunner
) -> None:
    order: list[int] = []
    answers = [Answer() for _ in range(20)]

    def respond(number: int, reply: StreamReply | MoulinError) -> None:
        order.append(number)
        answers[number].respond(reply)

    with runner.held():
        for number, piece in enumerate(_pieces(AUDIO, 800)):
            request = stream_request(3, piece, start=number == 0, end=number == 19)
            service.submit(request, partial(respond, number))
    texts = [answer.text for answer in answers]
    assert order == list(range(20))
    assert texts[:-1] == [_alone(AUDIO[: 800 * number], finish=False) for number in range(1, 20)]
    assert texts[-1] == _alone(AUDIO)


def test_an_id_may_be_used_again_right_after_its_end(service: StreamingService) -> None:
    for audio in (AUDIO, OTHER_AUDIO, AUDIO):
        send(service, 10086, audio[:8000], start=True)
        assert send(service, 10086, audio[8000:], end=True).text == _alone(audio)
    assert service.num_open == 0


def test_an_id_may_start_again_while_its_end_is_being_worked_on(
    service: StreamingService, runner: FakeStreamRunner
) -> None:
    with runner.held():
        ends = [send(service, 1, audio, start=True, end=True) for audio in (AUDIO, OTHER_AUDIO, AUDIO[:5000])]
        begun = send(service, 1, OTHER_AUDIO[:5000], start=True)
        assert service.num_open == 4
    assert [end.text for end in ends] == [_alone(AUDIO), _alone(OTHER_AUDIO), _alone(AUDIO[:5000])]
    begun.wait()
    assert service.num_open == 1
    assert send(service, 1, OTHER_AUDIO[5000:], end=True).text == _alone(OTHER_AUDIO)


def test_many_requests_that_need_no_step_behind_one_that_does(
    service: StreamingService, runner: FakeStreamRunner
) -> None:
    """They are answered one after the other, not each inside the one before."""
    with runner.held():
        first = send(service, 1, AUDIO, start=True)
        others = [send(service, 1, NOTHING) for _ in range(5000)]
        last = send(service, 1, NOTHING, end=True)
    assert {answer.text for answer in (first, *others)} == {_alone(AUDIO, finish=False)}
    assert last.text == _alone(AUDIO)
    assert service.num_open == 0


def test_streams_that_come_together_step_together(runner: FakeStreamRunner, service: StreamingService) -> None:
    with runner.held():
        for number in range(2):
            send(service, 100 + number, AUDIO, start=True, end=True)
            assert runner.entered.acquire(timeout=60)
        answers = [send(service, number, AUDIO[number:], start=True, end=True) for number in range(20)]
    assert [answer.text for answer in answers] == [_alone(AUDIO[number:]) for number in range(20)]
    assert max(runner.batch_sizes) == runner.limits.max_batch


def test_streams_of_a_real_model_from_several_threads() -> None:
    """Each says what it says alone, whoever it shares its steps with."""
    recognizer = open_stream_recognizer(
        BUNDLES / "lstm-streaming", EngineChoice(threads=2), max_streams=16, max_batch=5
    )
    waveforms = [np.random.default_rng(number).normal(0, 0.1, 9000).astype(np.float32) for number in range(12)]
    expected = [heard_alone(recognizer, waveform) for waveform in waveforms]
    assert len(set(expected)) > 6
    service = StreamingService(recognizer)
    texts: dict[int, str] = {}

    def speak(number: int) -> None:
        rng = np.random.default_rng(number)
        cuts = np.sort(rng.integers(0, 9000, 6))
        pieces = np.split(waveforms[number], cuts)
        answers = [
            send(service, number + 1, piece, start=count == 0, end=count == 6) for count, piece in enumerate(pieces)
        ]
        texts[number] = answers[-1].text

    speakers = [threading.Thread(target=speak, args=(number,)) for number in range(12)]
    for speaker in speakers:
        speaker.start()
    for speaker in speakers:
        speaker.join()
    service.close()
    assert [texts[number] for number in range(12)] == expected
    assert recognizer.num_open == 0


# -------------------------------------------------------------------------------- requests that cannot be taken


def test_a_lost_start_says_so(service: StreamingService) -> None:
    send(service, 1, AUDIO, start=True)
    for end in (False, True):
        error = send(service, 2, AUDIO, end=end).error
        assert isinstance(error, StreamError)
        assert error.message == "Stream 2 is not open"
        assert "must have sequence_start" in str(error.hint)
        assert "15 s" in str(error.hint)
    assert send(service, 1, NOTHING, end=True).text == _alone(AUDIO)


def test_nothing_comes_after_the_end(service: StreamingService, runner: FakeStreamRunner) -> None:
    send(service, 1, AUDIO, start=True, end=True).wait()
    assert isinstance(send(service, 1, AUDIO).error, StreamError)
    with runner.held():
        last = send(service, 1, AUDIO, start=True, end=True)
        assert isinstance(send(service, 1, AUDIO).error, StreamError), "also while the end is being worked on"
    assert last.text == _alone(AUDIO)


@pytest.mark.parametrize("end", [False, True])
def test_a_second_start_leaves_the_first_stream_alone(service: StreamingService, end: bool) -> None:
    send(service, 1, AUDIO[:9000], start=True)
    error = send(service, 1, OTHER_AUDIO, start=True, end=end).error
    assert isinstance(error, StreamError)
    assert "Stream 1 is open" in error.message
    assert service.num_open == 1
    assert send(service, 1, AUDIO[9000:], end=True).text == _alone(AUDIO)


def test_a_client_with_fixed_ids_can_be_run_again(service: StreamingService, clock: Clock) -> None:
    """Killed after two chunks of 0.3 s, it comes back after three seconds; the stream that it left is no part of it."""
    send(service, 1, OTHER_AUDIO[:4800], start=True).wait()
    clock.now += 0.3
    send(service, 1, OTHER_AUDIO[4800:9600]).wait()
    clock.now += 2.9
    error = send(service, 1, AUDIO, start=True).error
    assert isinstance(error, StreamError)
    assert "wait until 3 s have passed" in str(error.hint)
    clock.now += 0.1
    assert send(service, 1, AUDIO, start=True, end=True).text == _alone(AUDIO)
    assert service.num_open == 0
    assert service.counters().taken_over == 1


@pytest.mark.parametrize(("first", "gap", "alive_sec"), [(32_000, None, 6), (1600, 2.0, 6), (32_000, 0.1, 3)])
def test_a_client_with_rare_chunks_is_not_taken_over(
    service: StreamingService, clock: Clock, first: int, gap: float | None, alive_sec: float
) -> None:
    """Three of its chunks' times: of the first chunk's audio, then of the time between chunks."""
    send(service, 1, np.tile(AUDIO, 2)[:first], start=True).wait()
    if gap is not None:
        clock.now += gap
        send(service, 1, NOTHING).wait()
    clock.now += alive_sec - 0.01
    assert isinstance(send(service, 1, AUDIO, start=True).error, StreamError)
    clock.now += 0.02
    assert send(service, 1, AUDIO, start=True, end=True).text == _alone(AUDIO)


def test_a_stream_whose_chunk_is_under_way_is_alive(
    service: StreamingService, runner: FakeStreamRunner, clock: Clock
) -> None:
    with runner.held():
        waiting = send(service, 1, AUDIO, start=True)
        clock.now += 10
        assert isinstance(send(service, 1, AUDIO, start=True).error, StreamError)
    waiting.wait()
    assert send(service, 1, NOTHING, end=True).text == _alone(AUDIO)


def test_a_start_with_bad_options_takes_nothing_over(service: StreamingService, clock: Clock) -> None:
    send(service, 1, AUDIO, start=True).wait()
    clock.now += 10
    assert isinstance(send(service, 1, AUDIO, start=True, options=b'{"x": 1}').error, OptionsError)
    assert send(service, 1, NOTHING, end=True).text == _alone(AUDIO)


def _nan() -> Floats:
    wav = AUDIO[None].copy()
    wav[0, 77] = np.nan
    return wav


BAD: dict[str, tuple[dict[str, Any], type[MoulinError], str]] = {
    "nan": ({"wav": _nan()}, AudioError, "finite samples, got nan at sample 77 of 16000"),
    "infinity": ({"wav": np.full((1, 16000), np.inf, np.float32)}, AudioError, "got inf"),
    "16-bit scale": ({"wav": AUDIO[None] * 32768}, AudioError, r"\[-1, 1\], got a peak"),
    "length above": ({"wav_lens": [[16001]]}, AudioError, "WAV_LENS of 0 to 16000, the samples in WAV, got 16001"),
    "length below": ({"wav_lens": [[-1]]}, AudioError, "got -1"),
    "rank": ({"wav": AUDIO}, AudioError, r"Expected WAV \[1, N\] and WAV_LENS \[1, 1\], got \[16000\]"),
    "rows": ({"wav": np.stack([AUDIO, AUDIO])}, AudioError, r"got \[2, 16000\]"),
    "lengths": ({"wav_lens": [[16000], [16000]]}, AudioError, r"got \[1, 16000\] and \[2, 1\]"),
    "no length": ({"wav_lens": [[]]}, AudioError, r"and \[1, 0\]"),
    "too long": (
        {"wav": np.zeros((1, 9_600_001), np.float32), "wav_lens": [[9_600_001]]},
        AudioError,
        f"at most {MAX_CHUNK_SEC:g} s of audio in one request, got 600.0 s",
    ),
    "not JSON": ({"options": b"{beam: 4}"}, OptionsError, "The options are not JSON|options of a stream cannot"),
    "list": ({"options": b"[4]"}, OptionsError, "Expected a JSON object|options of a stream cannot"),
    "unknown": ({"options": b'{"bean": 4}'}, OptionsError, "no .*option 'bean'|options of a stream cannot"),
    "rule": (
        {"options": b'{"rule2_min_trailing_silence_sec": -1}'},
        OptionsError,
        "rule2_min_trailing_silence_sec to be a number of seconds|options of a stream cannot",
    ),
    "other options": ({"options": b'{"method": "greedy"} '}, OptionsError, "options of a stream cannot change"),
}
AT_START = [case for case in BAD if case != "other options"]


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_as_if_it_had_not_been_sent(service: StreamingService, case: str) -> None:
    fields, kind, message = BAD[case]
    send(service, 1, AUDIO[:7000], start=True, options=b'{"method": "greedy"}')
    for _ in range(2):
        error = send(service, 1, AUDIO, **fields).error
        assert isinstance(error, kind)
        with pytest.raises(kind, match=message):
            raise error
    assert service.num_open == 1
    assert send(service, 1, AUDIO[7000:], end=True).text == _alone(AUDIO)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_last_request_ends_the_stream(service: StreamingService, case: str) -> None:
    fields, kind, _ = BAD[case]
    send(service, 1, AUDIO, start=True, options=b'{"method": "greedy"}').wait()
    assert isinstance(send(service, 1, AUDIO, end=True, **fields).error, kind)
    assert service.num_open == 0
    assert send(service, 1, AUDIO, start=True, end=True).text == _alone(AUDIO)


@pytest.mark.parametrize("case", BAD)
def test_requests_before_a_bad_last_one_get_their_answers(
    service: StreamingService, runner: FakeStreamRunner, case: str
) -> None:
    fields, kind, _ = BAD[case]
    with runner.held():
        good = [send(service, 1, AUDIO[:7000], start=True), send(service, 1, AUDIO[7000:])]
        assert isinstance(send(service, 1, AUDIO, end=True, **fields).error, kind)
        assert isinstance(send(service, 1, AUDIO).error, StreamError)
    assert [answer.text for answer in good] == [_alone(AUDIO[:7000], finish=False), _alone(AUDIO, finish=False)]
    assert service.num_open == 0


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("case", AT_START)
def test_a_refused_start_opens_nothing(service: StreamingService, case: str, end: bool) -> None:
    fields, kind, message = BAD[case]
    error = send(service, 1, AUDIO, start=True, end=end, **fields).error
    assert isinstance(error, kind)
    with pytest.raises(kind, match=message):
        raise error
    assert service.num_open == 0
    assert isinstance(send(service, 1, AUDIO).error, StreamError)


@pytest.mark.parametrize("options", [b"[" * 100_000, b'{"temperature": 1' + b"0" * 400 + b"}"], ids=["deep", "huge"])
def test_options_that_break_the_parser_break_only_their_request(service: StreamingService, options: bytes) -> None:
    assert isinstance(send(service, 1, AUDIO, start=True, options=options).error, EngineError | OptionsError)
    assert service.num_open == 0
    assert send(service, 1, AUDIO, start=True, end=True).text == _alone(AUDIO)


# --------------------------------------------------------------------------------------------------- full


def test_a_full_service_says_so_at_once(clock: Clock) -> None:
    runner = FakeStreamRunner(3)
    service = StreamingService(StreamRecognizer(SPEC, HostStepper(SPEC, runner)), clock=clock)
    try:
        with runner.held():
            running = [send(service, number, AUDIO, start=True) for number in range(3)]
            refused = send(service, 3, AUDIO, start=True)
            assert refused.came, "it waited for the others"
        assert isinstance(refused.error, StreamsFull)
        assert "All 3 streams are in use" in refused.error.message
        assert "--max-streams" in str(refused.error.hint)
        assert isinstance(send(service, 3, AUDIO).error, StreamError), "a refused stream goes on"

        for answer in running:
            answer.wait()
        for number in range(20):
            send(service, number % 3, NOTHING, end=True).wait()
            assert send(service, number % 3, AUDIO, start=True).text == _alone(AUDIO, finish=False)
            assert service.num_open == 3
        assert isinstance(send(service, 3, AUDIO, start=True).error, StreamsFull)
    finally:
        service.close()
    assert service.num_open == 0


# ------------------------------------------------------------------------------------ streams nobody comes back to


def test_a_stream_that_nobody_uses_is_closed(service: StreamingService, clock: Clock) -> None:
    send(service, 1, AUDIO, start=True).wait()
    clock.now += 10
    send(service, 2, AUDIO, start=True).wait()
    clock.now += 5
    service.sweep()
    assert service.num_open == 2, "not before the time is over"
    clock.now += 1
    service.sweep()
    assert service.num_open == 1
    assert isinstance(send(service, 1, AUDIO).error, StreamError)
    assert send(service, 2, NOTHING, end=True).text == _alone(AUDIO)
    assert send(service, 1, AUDIO, start=True, end=True).text == _alone(AUDIO)


def test_every_request_begins_the_time_anew(service: StreamingService, clock: Clock) -> None:
    send(service, 1, NOTHING, start=True).wait()
    for _ in range(10):
        clock.now += 14
        service.sweep()
        send(service, 1, NOTHING).wait()
    assert service.num_open == 1


def test_a_refused_request_does_not_keep_a_stream_open(service: StreamingService, clock: Clock) -> None:
    send(service, 1, NOTHING, start=True).wait()
    for _ in range(4):
        clock.now += 5
        assert isinstance(send(service, 1, AUDIO * np.nan).error, MoulinError)
    service.sweep()
    assert service.num_open == 0


def test_a_stream_with_a_request_under_way_is_not_idle(
    service: StreamingService, runner: FakeStreamRunner, clock: Clock
) -> None:
    with runner.held():
        slow = send(service, 1, AUDIO, start=True)
        clock.now += 1000
        service.sweep()
        assert service.num_open == 1
    slow.wait()
    clock.now += 14
    service.sweep()
    assert service.num_open == 1, "the time counts from the reply"
    assert send(service, 1, NOTHING, end=True).text == _alone(AUDIO)


class _Connection:
    """Whether a client is there, and how often that was asked."""

    def __init__(self) -> None:
        self.gone = False
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.gone


def test_a_client_that_has_gone_frees_its_slot(
    service: StreamingService, runner: FakeStreamRunner, clock: Clock
) -> None:
    connection = _Connection()
    with runner.held():
        hour = send(service, 1, np.tile(AUDIO, 100), start=True, is_cancelled=connection)
        behind = [send(service, 1, AUDIO), send(service, 1, AUDIO, end=True)]
        stays = send(service, 2, AUDIO, start=True)
        assert runner.entered.acquire(timeout=60)
        service.sweep()
        assert connection.asked == 0, "asking is dear: not before the request has waited for long"
        clock.now += 2
        service.sweep()
        assert connection.asked == 1
        connection.gone = True
        service.sweep()
    for answer in (hour, *behind):
        assert isinstance(answer.error, StreamError)
    assert stays.text == _alone(AUDIO, finish=False)
    assert service.num_open == 1
    assert runner.num_chunks < 100, "its audio was decoded for nobody"
    assert send(service, 1, AUDIO, start=True, end=True).text == _alone(AUDIO)


def test_a_client_that_stays_is_not_cut_off(service: StreamingService, runner: FakeStreamRunner, clock: Clock) -> None:
    connection = _Connection()
    with runner.held():
        answer = send(service, 1, AUDIO, start=True, end=True, is_cancelled=connection)
        for _ in range(5):
            clock.now += 2
            service.sweep()
        assert connection.asked >= 5
    assert answer.text == _alone(AUDIO)
    asked = connection.asked
    service.sweep()
    assert connection.asked == asked, "its request has been answered"


def test_a_connection_that_fails_to_say_is_there(
    service: StreamingService, runner: FakeStreamRunner, clock: Clock
) -> None:
    def broken() -> bool:
        raise RuntimeError("no connection to the parent process")

    with runner.held():
        answer = send(service, 1, AUDIO, start=True, end=True, is_cancelled=broken)
        clock.now += 2
        service.sweep()
    assert answer.text == _alone(AUDIO)


def test_a_client_found_gone_after_its_answer_loses_nothing(
    service: StreamingService, runner: FakeStreamRunner, clock: Clock
) -> None:
    """Asking takes a while, and meanwhile the request may be answered: then its cancellation says nothing."""
    answer = Answer()

    def answered_meanwhile() -> bool:
        runner.release()
        answer.wait()
        return True

    with runner.held():
        service.submit(stream_request(1, AUDIO, start=True, is_cancelled=answered_meanwhile), answer.respond)
        clock.now += 2
        service.sweep()
    assert send(service, 1, NOTHING, end=True).text == _alone(AUDIO)


def test_audio_may_be_discarded_while_a_window_of_it_is_being_taken(recognizer: StreamRecognizer) -> None:
    """The sweeper has another thread than the step, and a step that fails would fail for all of its batch."""
    kept, discarded = recognizer.open(), recognizer.open()
    for stream in (kept, discarded):
        for piece in _pieces(AUDIO, 100):
            recognizer.accept(stream, piece)
    recognizer.discard(discarded)
    assert not recognizer.is_ready(discarded)
    recognizer.step([kept, discarded])
    assert recognizer.text(kept) == recognizer.text(discarded) != ""
    assert not recognizer.is_ready(discarded)


# ------------------------------------------------------------------------------------------- what fails inside


def test_a_failing_step_ends_the_streams_in_it_and_no_others(
    service: StreamingService, runner: FakeStreamRunner
) -> None:
    send(service, 1, AUDIO[:9000], start=True).wait()
    send(service, 2, AUDIO, start=True).wait()
    send(service, 3, AUDIO, start=True).wait()
    runner.failure = "out of memory"
    with runner.held():
        failing = [send(service, 2, AUDIO), send(service, 2, AUDIO), send(service, 3, AUDIO, end=True)]
    first, behind, third = (answer.error for answer in failing)
    assert isinstance(first, EngineError)
    assert isinstance(third, EngineError)
    assert first.message == third.message == "Recognition failed, and the stream is closed: out of memory"
    assert isinstance(behind, StreamError)
    assert behind.message == "Stream 2 failed before this request"
    assert service.num_open == 1
    runner.failure = None
    assert isinstance(send(service, 2, AUDIO).error, StreamError)
    assert send(service, 1, AUDIO[9000:], end=True).text == _alone(AUDIO)
    assert send(service, 2, AUDIO, start=True, end=True).text == _alone(AUDIO)


@pytest.mark.parametrize("method", ["accept", "finish", "text", "update"])
def test_whatever_else_fails_ends_only_its_stream(
    service: StreamingService, recognizer: StreamRecognizer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def broken(*_: object) -> None:
        raise IndexError("token 99 of 37")

    send(service, 1, AUDIO, start=True).wait()
    send(service, 2, AUDIO, start=True).wait()
    with monkeypatch.context() as patch:
        patch.setattr(recognizer, method, broken)
        assert isinstance(send(service, 2, AUDIO, end=True, wants_update=True).error, EngineError)
        assert service.num_open == 1
    assert send(service, 1, NOTHING, end=True).text == _alone(AUDIO)


def test_a_stream_that_fails_to_open_takes_no_slot(service: StreamingService, runner: FakeStreamRunner) -> None:
    runner.decoder_failure = "no decoder"
    for _ in range(runner.limits.capacity + 1):
        assert "no decoder" in send(service, 1, AUDIO, start=True).error.message
    runner.decoder_failure = None
    assert service.num_open == 0
    assert send(service, 1, AUDIO, start=True, end=True).text == _alone(AUDIO)


def test_a_reply_that_cannot_be_delivered_stops_nobody_else(
    service: StreamingService, runner: FakeStreamRunner, caplog: pytest.LogCaptureFixture
) -> None:
    def undeliverable(reply: StreamReply | MoulinError) -> None:
        raise RuntimeError(f"no shared memory for {type(reply).__name__}")

    for samples in (AUDIO, NOTHING):
        for number in range(4):  # more than there are threads
            service.submit(stream_request(number, samples, start=True, end=True), undeliverable)
        service.submit(stream_request(9, samples), undeliverable)
    assert send(service, 1, AUDIO, start=True, end=True).text == _alone(AUDIO)
    service.close()
    assert service.num_open == 0
    assert len(caplog.records) == 10
    assert {record.message for record in caplog.records} == {"A reply could not be delivered"}
    assert runner.num_chunks


def test_close_answers_all_that_wait(runner: FakeStreamRunner) -> None:
    threads, minutes = set(threading.enumerate()), np.tile(AUDIO, 300)
    service = StreamingService(StreamRecognizer(SPEC, HostStepper(SPEC, runner)))
    with runner.held():
        answers = [
            send(service, number, minutes, start=piece == 0, end=number % 2 == 1 and piece == 2)
            for number in range(6)
            for piece in range(3)
        ]
        idle = send(service, 99, NOTHING, start=True)
        closing = threading.Thread(target=service.close)
        closing.start()
        # It waits for the steps under way, so that nothing runs any more when it returns.
        assert closing.is_alive()
    closing.join()
    idle.wait()
    assert {answer.error.message for answer in answers} == {"The server is shutting down"}
    assert service.num_open == 0
    assert set(threading.enumerate()) == threads
    assert isinstance(send(service, 1, AUDIO, start=True).error, StreamError)
    assert service.num_open == 0


def test_counters(clock: Clock) -> None:
    runner = FakeStreamRunner(2)
    service = StreamingService(StreamRecognizer(SPEC, HostStepper(SPEC, runner)), clock=clock)
    try:
        with runner.held():
            first = send(service, 1, AUDIO, start=True)
            clock.now += 3
        first.wait()
        send(service, 2, NOTHING, start=True).wait()
        send(service, 3, NOTHING, start=True).wait()
        clock.now += 16
        service.sweep()
        counters = service.counters()
    finally:
        service.close()
    assert (counters.opened, counters.refused, counters.timed_out, counters.replies) == (2, 1, 2, 2)
    assert (counters.waited_sec, counters.audio_sec) == (3.0, 1.0)
    assert counters.steps == counters.step_streams == runner.num_chunks > 0


# -------------------------------------------------------------------------------------------------------- 16-bit audio


def test_16_bits_are_heard_as_the_same_floats(service: StreamingService) -> None:
    in_16_bits = np.rint(AUDIO * 32767).astype(np.int16)
    pieces = _pieces(np.arange(len(AUDIO)).astype(np.float32), 3200)
    for number, piece in enumerate(pieces):
        first = int(piece[0])
        answer = send(
            service,
            7,
            piece,
            wav=None,
            wav_int16=in_16_bits[None, first : first + len(piece)],
            start=number == 0,
            end=number == len(pieces) - 1,
        )
    assert answer.text == _alone(in_16_bits.astype(np.float32) / 32768)


@pytest.mark.parametrize("given", ["neither", "both"])
def test_audio_comes_once(service: StreamingService, given: str) -> None:
    wav = {"neither": None, "both": AUDIO[None]}[given]
    wav_int16 = None if given == "neither" else np.zeros((1, len(AUDIO)), np.int16)
    error = send(service, 7, AUDIO, wav=wav, wav_int16=wav_int16, start=True).error
    assert str(error) == f"Expected either WAV or WAV_INT16, got {given}"


def test_audio_that_waits_is_a_copy(service: StreamingService, runner: FakeStreamRunner) -> None:
    """Triton's memory is written over as soon as `submit` returns."""
    memory = AUDIO.copy()
    with runner.held():
        answers = [send(service, 7, memory[:8000], start=True), send(service, 7, memory[8000:], end=True)]
        memory[:] = 0.5
    assert answers[1].text == _alone(AUDIO)


# ------------------------------------------------------------------------------------------------------------ refusals


def test_nobody_is_let_in_while_chunks_take_too_long(recognizer: StreamRecognizer) -> None:
    service = StreamingService(recognizer, max_step_sec=1e-9)
    try:
        first = send(service, 1, AUDIO, start=True)
        assert first.text
        refused = send(service, 2, AUDIO, start=True).error
        assert isinstance(refused, StreamsFull)
        assert "Too busy for another stream: a chunk takes" in str(refused)
        assert send(service, 1, AUDIO, end=True).text, "who is in stays in"
        counters = service.counters()
        assert (counters.opened, counters.refused, counters.refused_for_load) == (1, 0, 1)
        assert counters.step_sec > 0
        assert counters.step_wait_sec > 0
    finally:
        service.close()


def test_a_full_instance_says_that_it_is_one_of_several() -> None:
    service = StreamingService(StreamRecognizer(SPEC, HostStepper(SPEC, FakeStreamRunner(1))), instances=3)
    try:
        assert send(service, 1, NOTHING, start=True).text == ""
        message = str(send(service, 2, NOTHING, start=True).error)
        assert message.startswith("All 1 streams are in use of the instance that Triton chose among 3")
    finally:
        service.close()


# ------------------------------------------------------------------------------------------------------- CHUNK_INDEX


def numbered(service: StreamingService, samples: Floats, number: int | None, **fields: Any) -> Answer:
    index = None if number is None else np.array([[number]], np.uint64)
    return send(service, 7, samples, start=number == 0, chunk_index=index, **fields)


def test_numbered_requests_are_a_stream_as_others(service: StreamingService, recognizer: StreamRecognizer) -> None:
    pieces = np.split(AUDIO, 4)
    answers = [numbered(service, piece, n, end=n == 3) for n, piece in enumerate(pieces)]
    assert answers[-1].text == heard_alone(recognizer, AUDIO)
    assert service.num_open == 0


@pytest.mark.parametrize("number", [0, 1, 3, 2**64 - 1, None])
@pytest.mark.parametrize("end", [False, True])
def test_a_gap_or_repeat_ends_the_stream(service: StreamingService, number: int | None, *, end: bool) -> None:
    for n in (0, 1):
        assert isinstance(numbered(service, AUDIO, n).wait(), StreamReply)
    index = None if number is None else np.array([[number]], np.uint64)
    error = send(service, 7, AUDIO, chunk_index=index, end=end).error
    assert isinstance(error, StreamError)
    got = "none" if number is None else number
    assert f"Expected CHUNK_INDEX 2 of stream 7, got {got}: a request is missing, repeated or" in error.message
    assert service.num_open == 0
    assert "not open" in numbered(service, AUDIO, 2).error.message


def test_requests_before_a_gap_are_answered(
    service: StreamingService, recognizer: StreamRecognizer, runner: FakeStreamRunner
) -> None:
    with runner.held():
        answers = [numbered(service, AUDIO, n) for n in (0, 1)]
        broken = numbered(service, AUDIO, 3)
    assert answers[-1].text == heard_alone(recognizer, np.concatenate([AUDIO, AUDIO]), finish=False)
    assert isinstance(broken.error, StreamError)
    assert service.num_open == 0


def test_a_stream_that_begins_with_another_number(service: StreamingService) -> None:
    error = send(service, 7, AUDIO, start=True, chunk_index=np.array([[1]], np.uint64)).error
    assert "Expected CHUNK_INDEX 0 with the first request" in error.message
    assert service.num_open == 0


def test_numbers_in_a_stream_that_began_without(service: StreamingService) -> None:
    assert isinstance(send(service, 7, AUDIO, start=True).wait(), StreamReply)
    assert "Expected CHUNK_INDEX none of stream 7, got 1" in numbered(service, AUDIO, 1).error.message
    assert service.num_open == 0


def test_a_refused_request_has_no_number(service: StreamingService) -> None:
    """It changes nothing: its number is that of the next."""
    assert isinstance(numbered(service, AUDIO, 0).wait(), StreamReply)
    assert isinstance(numbered(service, np.full(5, np.nan, np.float32), 1).error, AudioError)
    assert isinstance(numbered(service, AUDIO, 1).wait(), StreamReply)


def test_numbers_of_a_wrong_shape(service: StreamingService) -> None:
    error = send(service, 7, AUDIO, start=True, chunk_index=np.zeros((1, 2), np.uint64)).error
    assert "Expected CHUNK_INDEX [1, 1], got [1, 2]" in error.message


# ----------------------------------------------------------------------------------------------------- untrusted text


def test_messages_are_short_whatever_they_are_about(service: StreamingService) -> None:
    long = "x" * 1_000_000
    for answer in (
        send(service, long, AUDIO),
        send(service, 1, AUDIO, start=True, options=f'{{"{long}": 1}}'.encode()),
        send(service, 1, AUDIO, start=True, options=f'{{"method": "{long[:60_000]}"}}'.encode()),
        send(service, 1, AUDIO, start=True, options=b"[" * 60_000),
        send(service, 1, AUDIO, start=True, options=b'{"\\ud800": 1}'),
        send(service, 1, AUDIO, start=True, options=b'{"beam": ' + b"9" * 900 + b"}"),
        send(service, 1, AUDIO, start=True, options=[b"{}", b"{}"]),
    ):
        assert not isinstance(answer.error, EngineError)
        assert len(str(answer.error).encode()) < 2000
    assert service.num_open == 0


def test_padding_counts_for_the_length_of_a_request(service: StreamingService) -> None:
    samples = np.zeros(int(MAX_CHUNK_SEC * 16_000) + 1, np.float32)
    error = send(service, 1, samples, start=True, wav_lens=[[0]]).error
    assert "at most 600 s of audio in one request" in error.message
