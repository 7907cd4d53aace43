"""Rules over signs of life, with times that a test makes up, and the signs of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from moulin.launch.backoff import Backoff
from moulin.launch.liveness import Failure, LoadLiveness, ProcessLiveness
from moulin.launch.vital_signs import Signs, family_activity, signs_of
from tests.cli.command import eventually


def _signs(state: str = "S", cpu_sec: float = 0.0, *, busy: bool = False, beat: str | None = None) -> Signs:
    return Signs(state, cpu_sec, busy, beat)


def _judged(seconds: Iterable[float], signs: Callable[[float], Signs], answers: bool | None = None) -> list[str | None]:
    """The cause at each look."""
    liveness = ProcessLiveness("The process")
    failures = [liveness.observe(signs(second), second, answers=answers) for second in seconds]
    return [failure.cause if failure else None for failure in failures]


def test_what_a_signal_has_stopped() -> None:
    assert _judged(range(4), lambda at: _signs("T" if at >= 1 else "S")) == [None, None, None, "stopped"]


def test_a_stop_of_a_second_between_two_late_looks() -> None:
    assert _judged([0, 1.9, 2.0], lambda at: _signs("T" if at else "S")) == [None] * 3


def test_a_debuggers_pause_is_none() -> None:
    assert _judged(range(60), lambda _at: _signs("t")) == [None] * 60


def test_stopped_and_continued_again_and_again() -> None:
    assert _judged(range(60), lambda at: _signs("T" if at % 2 else "S")) == [None] * 60


def test_an_interpreter_that_is_stuck() -> None:
    causes = _judged(range(20), lambda at: _signs(beat=f"{min(at, 5)}"))
    assert causes.index("hung") - 5 <= 7


@pytest.mark.parametrize(
    "signs",
    [
        lambda at: _signs(cpu_sec=at, beat="1"),  # compiles a kernel
        lambda _at: _signs(busy=True, beat="1"),  # waits for a CPU on a busy machine
        lambda _at: _signs("D", busy=True, beat="1"),  # reads a model from a slow disk
    ],
)
def test_what_works_may_be_silent_for_long(signs: Callable[[float], Signs]) -> None:
    assert _judged(range(110), signs) == [None] * 110
    assert "hung" in _judged(range(130), signs)


def test_health_requests() -> None:
    assert _judged(range(60), lambda _at: _signs(), answers=True) == [None] * 60
    assert _judged(range(10), lambda _at: _signs(), answers=False).index("hung") <= 7
    assert _judged(range(50), lambda at: _signs(cpu_sec=at), answers=False) == [None] * 50


def test_an_observer_that_was_stopped_itself_begins_anew() -> None:
    assert _judged([0, 1, 2, 3000, 3001], lambda _at: _signs(beat="1"), answers=False) == [None] * 5


def test_a_process_without_beats_is_not_judged_by_them() -> None:
    assert _judged(range(60), lambda _at: _signs()) == [None] * 60


def test_loads() -> None:
    building, idle = LoadLiveness(60), LoadLiveness(60)
    assert not any(building.observe(cpu_sec=second, busy=False, now=second) for second in range(3600))
    assert [idle.observe(cpu_sec=0.0, busy=False, now=second) for second in range(62)].index(True) == 60
    reading = LoadLiveness(60)
    assert not any(reading.observe(cpu_sec=0.0, busy=second % 30 == 0, now=second) for second in range(600))


def test_pauses() -> None:
    backoff = Backoff()
    assert [backoff.pause_sec(0.0, 1.0) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.pause_sec(3600.0, 1.0) == 0
    assert backoff.pause_sec(1.0, 1.0) == 1


def test_signs_of_real_processes() -> None:
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as child:
        assert eventually(lambda: (signs := signs_of(child.pid)) is not None and signs.state == "S")
        cpu_sec, busy = family_activity(child.pid)
        assert cpu_sec >= 0
        assert not busy
        os.kill(child.pid, signal.SIGSTOP)
        assert eventually(lambda: (signs := signs_of(child.pid)) is not None and signs.state == "T")
        child.kill()
    assert signs_of(child.pid) is None


def test_what_is_below_a_process_counts_and_nothing_else(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    for pid, parent, state in ((7, 1, "S"), (8, 7, "S"), (9, 8, "R"), (10, 1, "R")):
        (tmp_path / f"{pid}").mkdir()
        (tmp_path / f"{pid}" / "stat").write_text(f"{pid} (a) b) {state} {parent} {'0 ' * 9}{ticks} 0 0 0")
    assert family_activity(7, tmp_path) == (3.0, True)
    assert family_activity(10, tmp_path) == (1.0, True)
    (tmp_path / "9" / "stat").unlink()
    assert family_activity(7, tmp_path) == (2.0, False)
    assert family_activity(11, tmp_path) == (0.0, False)


def test_a_heart_beats_in_a_threads_name() -> None:
    code = (
        "import os; from moulin.launch.heartbeat import Heartbeat; from moulin.launch.vital_signs import signs_of\n"
        "heart = Heartbeat(by_itself=False); print(signs_of(os.getpid()).beat)\n"
        "for _ in range(2): heart.beat(); print(signs_of(os.getpid()).beat)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    before, first, second = done.stdout.splitlines()
    assert before == "None" != first != second


def test_a_hung_interpreter_is_found() -> None:
    """Really: a native call that holds the interpreter's lock and sleeps."""
    code = (
        "import ctypes, time; from moulin.launch.heartbeat import Heartbeat\n"
        "heart = Heartbeat(); time.sleep(1.5); print('beats', flush=True); ctypes.PyDLL(None).sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        liveness, began, failure = ProcessLiveness("The child"), time.monotonic(), None
        while failure is None and time.monotonic() < began + 60:
            signs = signs_of(child.pid)
            assert signs is not None
            failure = liveness.observe(signs, time.monotonic())
            time.sleep(0.5)
        child.kill()
    assert failure == Failure("hung", "The child hangs: its interpreter shows no sign of life")
