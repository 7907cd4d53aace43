"""`StepScheduler` with a fake recognizer, which notes the steps, and waits where a test wants it."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from moulin.arrays import Bools, Floats, Ints
from moulin.bundle.load import load_bundle
from moulin.engine.host_stepper import HostStepper
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from moulin.engine.step_scheduler import StepScheduler
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.streaming.options import StreamOptions
from tests.bundles import BUNDLES

PATIENCE_SEC = 300.0
"""A test that waits longer has failed; none takes a time for its result."""


_AT: list[FakeStream] = []
"""The fake streams by slot."""


@dataclass(eq=False)
class FakeStream:
    name: str
    windows: int = 1
    """Steps for which the stream has audio."""

    def __post_init__(self) -> None:
        self.slot = len(_AT)
        _AT.append(self)


@dataclass
class FakeRecognizer:
    """A recognizer whose step takes a window of each stream; where `gated`, it first waits until it is let through."""

    num_workers: int = 1
    max_batch: int = 8
    gated: bool = False
    gathering_sec: float = 0.0
    num_open: int = 1000
    chunk_sec: float = 0.32
    batches: list[list[FakeStream]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limits = StepLimits(1000, self.max_batch, self.num_workers, self.gathering_sec)
        self._lock = threading.Lock()
        self._gate = threading.Semaphore(0)
        self._begun: queue.Queue[list[FakeStream]] = queue.Queue()
        self._stepping: set[FakeStream] = set()
        self.faults: list[str] = []

    @property
    def names(self) -> list[str]:
        """The streams of each batch so far."""
        return ["".join(stream.name for stream in batch) for batch in self.batches]

    def are_ready(self, slots: Ints) -> Bools:
        return np.array([_AT[slot].windows > 0 for slot in slots.tolist()])

    def step_slots(self, slots: Ints) -> None:
        self.step([_AT[slot] for slot in slots.tolist()])

    def step(self, streams: Sequence[FakeStream]) -> None:
        with self._lock:
            self.batches.append(list(streams))
            if not streams or len(streams) > self.max_batch:
                self.faults.append(f"a batch of {len(streams)}")
            if len(set(streams)) < len(streams) or self._stepping & set(streams):
                self.faults.append("a stream in two places")
            if any(stream.windows < 1 for stream in streams):
                self.faults.append("a stream without audio")
            self._stepping |= set(streams)
        self._begun.put(list(streams))
        if self.gated:
            assert self._gate.acquire(timeout=PATIENCE_SEC)
        with self._lock:
            self._stepping -= set(streams)
        if any(stream.name == "broken" for stream in streams):
            raise RuntimeError("out of memory")
        for stream in streams:
            stream.windows -= 1

    def wait_for_step(self) -> list[FakeStream]:
        """The streams of the next step that begins."""
        return self._begun.get(timeout=PATIENCE_SEC)

    def let_through(self, steps: int = 1) -> None:
        self._gate.release(steps)


class Finished:
    """The streams that are done, in order, and a wait for them."""

    def __init__(self) -> None:
        self.results: list[tuple[FakeStream, Exception | None]] = []
        self._changed = threading.Condition()

    def note(self, stream: FakeStream) -> Callable[[Exception | None], None]:
        def done(error: Exception | None) -> None:
            with self._changed:
                self.results.append((stream, error))
                self._changed.notify_all()

        return done

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.results) >= count, PATIENCE_SEC)

    @property
    def names(self) -> list[str]:
        return [stream.name for stream, _ in self.results]


@contextmanager
def scheduled(recognizer: FakeRecognizer, patience_sec: float = PATIENCE_SEC) -> Iterator[StepScheduler]:
    fake: Any = recognizer
    scheduler = StepScheduler(fake, patience_sec=patience_sec)
    try:
        yield scheduler
    finally:
        recognizer.gated = False
        recognizer.let_through(1000)
        scheduler.close()
    assert not recognizer.faults


def submit(scheduler: StepScheduler, stream: FakeStream, finished: Finished) -> FakeStream:
    fake: Any = stream
    scheduler.submit(fake, finished.note(stream))
    return stream


# ------------------------------------------------------------------------------------------------- what becomes of all


@pytest.mark.parametrize("num_workers", [1, 2, 5])
@pytest.mark.parametrize("max_batch", [1, 3, 100])
def test_everything_submitted_is_done_exactly_once(num_workers: int, max_batch: int) -> None:
    """From three threads at once, each stream with several windows, and again when it is done."""
    recognizer, finished = FakeRecognizer(num_workers, max_batch), Finished()
    rng = random.Random(0)
    streams = [FakeStream(str(number)) for number in range(90)]
    wanted = {stream: rng.sample(range(1, 6), 3) for stream in streams}
    with scheduled(recognizer) as scheduler:

        def work(own: Sequence[FakeStream]) -> None:
            for turn in range(3):
                for stream in own:
                    stream.windows = wanted[stream][turn]
                    submit(scheduler, stream, finished)
                finished.wait_for(len(streams) * (turn + 1))

        # Turns are kept apart by everything of the last one being done.
        clients = [threading.Thread(target=work, args=(streams[first::3],)) for first in range(3)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(PATIENCE_SEC)
            assert not client.is_alive()
        assert scheduler.num_steps == len(recognizer.batches)
        assert scheduler.num_stepped == sum(map(len, recognizer.batches))
    assert Counter(stream for stream, _ in finished.results) == dict.fromkeys(streams, 3)
    assert all(error is None for _, error in finished.results)
    assert all(stream.windows == 0 for stream in streams)
    steps = Counter(stream for batch in recognizer.batches for stream in batch)
    assert steps == {stream: sum(turns) for stream, turns in wanted.items()}


def test_a_stream_may_be_submitted_again_from_its_done() -> None:
    """A service does so where the next request is waiting."""
    recognizer, finished = FakeRecognizer(), Finished()
    stream = FakeStream("a")
    fake: Any = stream
    with scheduled(recognizer) as scheduler:

        def again(error: Exception | None) -> None:
            finished.note(stream)(error)
            if len(finished.results) < 50:
                stream.windows = 1
                scheduler.submit(fake, again)

        scheduler.submit(fake, again)
        finished.wait_for(50)
    assert recognizer.names == ["a"] * 50


# ---------------------------------------------------------------------------------------------------- who goes together


def test_streams_that_wait_while_all_workers_are_busy_go_together() -> None:
    recognizer, finished = FakeRecognizer(gated=True), Finished()
    with scheduled(recognizer) as scheduler:
        submit(scheduler, FakeStream("a"), finished)
        recognizer.wait_for_step()
        for name in "bcd":
            submit(scheduler, FakeStream(name), finished)
        recognizer.let_through(2)
        finished.wait_for(4)
    assert recognizer.names == ["a", "bcd"]


def test_a_batch_holds_no_more_than_the_runner_wants() -> None:
    recognizer, finished = FakeRecognizer(max_batch=3, gated=True), Finished()
    with scheduled(recognizer) as scheduler:
        submit(scheduler, FakeStream("a"), finished)
        recognizer.wait_for_step()
        for name in "bcdefghi":
            submit(scheduler, FakeStream(name), finished)
        recognizer.let_through(4)
        finished.wait_for(9)
    assert recognizer.names == ["a", "bcd", "efg", "hi"]
    assert finished.names == list("abcdefghi")


def test_one_that_sends_much_delays_nobody() -> None:
    """A stream goes to the end of the queue after each step."""
    recognizer, finished = FakeRecognizer(max_batch=1, gated=True), Finished()
    with scheduled(recognizer) as scheduler:
        submit(scheduler, FakeStream("L", windows=5), finished)
        recognizer.wait_for_step()
        submit(scheduler, FakeStream("a"), finished)
        submit(scheduler, FakeStream("b", windows=2), finished)
        recognizer.let_through()
        assert recognizer.wait_for_step()[0].name == "a"
        submit(scheduler, FakeStream("c"), finished)
        recognizer.let_through(100)
        finished.wait_for(4)
    assert "".join(recognizer.names) == "L" + "ab" + "L" + "c" + "b" + "LLL"
    assert finished.names == ["a", "c", "b", "L"]


def test_long_and_short_share_batches() -> None:
    recognizer, finished = FakeRecognizer(max_batch=2, gated=True), Finished()
    with scheduled(recognizer) as scheduler:
        submit(scheduler, FakeStream("x"), finished)
        recognizer.wait_for_step()
        for name, windows in (("L", 4), ("M", 3), ("a", 1), ("b", 1)):
            submit(scheduler, FakeStream(name, windows), finished)
        recognizer.let_through(100)
        finished.wait_for(5)
    assert recognizer.names == ["x", "LM", "ab", "LM", "LM", "L"]


def test_idle_workers_share_what_waits() -> None:
    """Two workers become free with four streams waiting, two half batches: neither takes all."""
    recognizer, finished = FakeRecognizer(num_workers=2, max_batch=4, gated=True), Finished()
    with scheduled(recognizer) as scheduler:
        with scheduler._changed:  # both workers sleep until all four are there
            for name in "abcd":
                submit(scheduler, FakeStream(name), finished)
        begun = [recognizer.wait_for_step() for _ in range(2)]
        recognizer.let_through(100)
        finished.wait_for(4)
    assert sorted("".join(stream.name for stream in batch) for batch in begun) == ["ab", "cd"]


def test_less_than_half_a_batch_is_not_shared() -> None:
    recognizer, finished = FakeRecognizer(num_workers=2), Finished()
    with scheduled(recognizer) as scheduler:
        with scheduler._changed:
            for name in "abcd":
                submit(scheduler, FakeStream(name), finished)
        finished.wait_for(4)
    assert recognizer.names == ["abcd"]


def test_beside_a_busy_worker_half_a_batch_is_waited_for() -> None:
    recognizer, finished = FakeRecognizer(num_workers=2, max_batch=6, gated=True), Finished()
    with scheduled(recognizer) as scheduler:
        submit(scheduler, FakeStream("x"), finished)
        recognizer.wait_for_step()
        for name in "abc":
            submit(scheduler, FakeStream(name), finished)
        assert [stream.name for stream in recognizer.wait_for_step()] == ["a", "b", "c"]


def test_nobody_waits_for_others_who_do_not_come() -> None:
    """The busy worker never ends its step here."""
    recognizer, finished = FakeRecognizer(num_workers=2, gated=True), Finished()
    with scheduled(recognizer, patience_sec=0.01) as scheduler:
        submit(scheduler, FakeStream("x"), finished)
        recognizer.wait_for_step()
        submit(scheduler, FakeStream("a"), finished)
        assert [stream.name for stream in recognizer.wait_for_step()] == ["a"]


def test_nobody_waits_for_others_when_all_workers_are_free() -> None:
    """For as long as a test waits at all, and no longer."""
    recognizer, finished = FakeRecognizer(num_workers=2), Finished()
    with scheduled(recognizer) as scheduler:
        for name in "ab":
            submit(scheduler, FakeStream(name), finished)
            finished.wait_for(1 + "ab".index(name))
    assert recognizer.names == ["a", "b"]


def test_where_a_step_costs_the_same_for_many_a_free_worker_waits_for_half_a_batch() -> None:
    recognizer, finished = FakeRecognizer(max_batch=8, gathering_sec=PATIENCE_SEC), Finished()
    with scheduled(recognizer) as scheduler:
        for name in "abcd":
            submit(scheduler, FakeStream(name), finished)
        finished.wait_for(4)
    assert recognizer.names == ["abcd"]


def test_it_waits_for_nobody_who_is_not_likely_to_come() -> None:
    """Of three others, each with a chunk in four times the wait, not one."""
    recognizer = FakeRecognizer(gathering_sec=PATIENCE_SEC, chunk_sec=4 * PATIENCE_SEC, num_open=4)
    finished = Finished()
    with scheduled(recognizer) as scheduler:
        submit(scheduler, FakeStream("a"), finished)
        finished.wait_for(1)
    assert recognizer.names == ["a"]


def test_steps_run_beside_each_other_on_all_workers() -> None:
    recognizer, finished = FakeRecognizer(num_workers=3, max_batch=1, gated=True), Finished()
    with scheduled(recognizer) as scheduler:
        for name in "abc":
            submit(scheduler, FakeStream(name), finished)
            assert [stream.name for stream in recognizer.wait_for_step()] == [name]
        recognizer.let_through(3)
        finished.wait_for(3)


def test_a_step_that_fails_is_told_and_the_worker_goes_on() -> None:
    recognizer, finished = FakeRecognizer(gated=True), Finished()
    with scheduled(recognizer) as scheduler:
        submit(scheduler, FakeStream("a"), finished)
        recognizer.wait_for_step()
        broken = submit(scheduler, FakeStream("broken", windows=3), finished)
        beside = submit(scheduler, FakeStream("beside"), finished)
        recognizer.let_through(2)
        finished.wait_for(3)
        errors = dict(finished.results[1:])
        assert set(errors) == {broken, beside}, "all of the batch"
        assert all(str(error) == "out of memory" for error in errors.values())
        submit(scheduler, FakeStream("after"), finished)
        recognizer.let_through()
        finished.wait_for(4)
    assert finished.results[3][1] is None
    assert finished.names[3] == "after"
    assert len(finished.results) == 4


def test_every_step_may_fail() -> None:
    recognizer, finished = FakeRecognizer(num_workers=2, max_batch=2), Finished()
    with scheduled(recognizer) as scheduler:
        for _ in range(20):
            submit(scheduler, FakeStream("broken"), finished)
        finished.wait_for(20)
    assert all(isinstance(error, RuntimeError) for _, error in finished.results)


def test_close_finishes_the_step_under_way_and_leaves_who_waits() -> None:
    recognizer, finished = FakeRecognizer(gated=True), Finished()
    with scheduled(recognizer) as scheduler:
        submit(scheduler, FakeStream("a"), finished)
        recognizer.wait_for_step()
        submit(scheduler, FakeStream("b"), finished)
        closing = threading.Thread(target=scheduler.close)
        closing.start()
        with scheduler._changed:
            assert scheduler._changed.wait_for(lambda: scheduler._closing, PATIENCE_SEC)
        recognizer.let_through()
        closing.join(PATIENCE_SEC)
        assert not closing.is_alive()
        assert not any(worker.is_alive() for worker in scheduler._workers)
    assert recognizer.names == ["a"]
    assert finished.names == ["a"]


def test_close_leaves_a_stream_with_more_windows_unfinished() -> None:
    recognizer, finished = FakeRecognizer(gated=True), Finished()
    with scheduled(recognizer) as scheduler:
        stream = submit(scheduler, FakeStream("a", windows=5), finished)
        recognizer.wait_for_step()
        closing = threading.Thread(target=scheduler.close)
        closing.start()
        with scheduler._changed:
            assert scheduler._changed.wait_for(lambda: scheduler._closing, PATIENCE_SEC)
        recognizer.let_through()
        closing.join(PATIENCE_SEC)
    assert stream.windows == 4
    assert not finished.results


@pytest.mark.parametrize("num_workers", [1, 4])
def test_close_without_work(num_workers: int) -> None:
    with scheduled(FakeRecognizer(num_workers)) as scheduler:
        scheduler.close()
        scheduler.close()


# ----------------------------------------------------------------------------------------------------- the real engine


def test_real_streams_hear_what_they_hear_alone(clips: list[Floats]) -> None:
    """Ten streams of different audio and length from two threads, on three workers, in batches of up to four."""
    spec = load_bundle(BUNDLES / "zipformer2-streaming")
    runner = OnnxRuntimeStreamRunner(spec, threads=1, workers=3, capacity=10, max_batch=4)
    recognizer = StreamRecognizer(spec, HostStepper(spec, runner), options=StreamOptions(endpoint=False))
    audios = [clip[: 16_000 + 1_000 * number] for number, clip in enumerate(clips[:10])]

    def text_alone(audio: Floats) -> str:
        stream = recognizer.open()
        recognizer.accept(stream, audio)
        recognizer.finish(stream)
        recognizer.advance(stream)
        recognizer.close(stream)
        return recognizer.text(stream)

    wanted = [text_alone(audio) for audio in audios]
    streams = [recognizer.open() for _ in audios]
    scheduler = StepScheduler(recognizer)

    def send(own: Sequence[int]) -> None:
        """The audio in four pieces, each submitted when the one before is done."""
        answered = threading.Semaphore(0)
        for piece in range(4):
            for number in own:
                stream, quarter = streams[number], len(audios[number]) // 4 + 1
                recognizer.accept(stream, audios[number][piece * quarter :][:quarter])
                if piece == 3:
                    recognizer.finish(stream)
                if recognizer.is_ready(stream):
                    scheduler.submit(stream, lambda _: answered.release())
                else:
                    answered.release()
            for _ in own:
                assert answered.acquire(timeout=PATIENCE_SEC)

    clients = [threading.Thread(target=send, args=(range(first, 10, 2),)) for first in range(2)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(PATIENCE_SEC)
        assert not client.is_alive()
    scheduler.close()
    assert [recognizer.text(stream) for stream in streams] == wanted
    assert all(recognizer.ended(stream) for stream in streams)
    assert len(set(wanted)) == 10


# ------------------------------------------------------------------------------------------------------------- times


def test_the_latency_is_that_of_who_waits_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    recognizer, finished = FakeRecognizer(gated=True), Finished()
    with scheduled(recognizer) as scheduler:
        assert scheduler.latency_sec() == 0
        submit(scheduler, FakeStream("a"), finished)
        recognizer.wait_for_step()
        submit(scheduler, FakeStream("b"), finished)
        now[0] += 3
        assert scheduler.latency_sec() == 3, "b waits"
        recognizer.let_through()
        recognizer.wait_for_step()
        now[0] += 1
        recognizer.let_through()
        finished.wait_for(2)
        assert (scheduler.step_sec, scheduler.wait_sec) == (4, 3)
        assert scheduler.stream_sec == 7
        assert sum(scheduler.latencies) == scheduler.num_stepped
        # A fifth of a's three seconds, then a fifth of the way from there to b's four.
        assert scheduler.latency_sec() == pytest.approx(0.6 + 0.2 * (4 - 0.6))
        now[0] += 10
        assert scheduler.latency_sec() == 0, "nobody has stepped for long"


def test_streams_submitted_together_are_told_when_they_are_done() -> None:
    """More streams than a batch holds, with different numbers of windows: each is told once, some together."""
    recognizer = FakeRecognizer(max_batch=4)
    streams = [FakeStream(str(number), windows=1 + number % 3) for number in range(10)]
    told: list[list[int]] = []
    ended = threading.Semaphore(0)

    def done(slots: Ints, error: Exception | None) -> None:
        assert error is None
        told.append(slots.tolist())
        for _ in slots:
            ended.release()

    with scheduled(recognizer, patience_sec=0) as scheduler:
        scheduler.submit_slots(np.array([stream.slot for stream in streams]), done)
        for _ in streams:
            assert ended.acquire(timeout=PATIENCE_SEC)
    assert sorted(slot for slots in told for slot in slots) == sorted(stream.slot for stream in streams)
    assert len(told) < len(streams)
    assert not recognizer.faults
    assert all(stream.windows == 0 for stream in streams)
