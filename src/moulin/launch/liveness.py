"""Whether a process still lives up to its name: rules over its signs, without a clock or a process.

A busy machine, a long batch and a long load are no failures. So a silence counts only while the process does nothing
at all, and not while the observer itself came late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from moulin.launch.vital_signs import Signs

Cause = Literal["ended", "instance_ended", "stopped", "hung", "not_ready"]
"""The process ended; the process of a model's instance did; a signal stopped one (SIGSTOP); one does nothing that it
should; it was not ready in time, or ended before."""
CAUSES: tuple[Cause, ...] = get_args(Cause)

STOPPED_SEC = 2.0
"""The time for which a process may be stopped: a debugger's pause does not count, it has a state of its own."""
SILENT_SEC = 6.0
"""The time without a sign of life, and without any work, after which a process is hung."""
SILENT_AT_WORK_SEC = 120.0
"""The same while it works: a native call may hold the interpreter's lock for long, to compile a kernel for example."""
UNANSWERED_SEC = 5.0
UNANSWERED_AT_WORK_SEC = 60.0
"""The times for which health requests may go unanswered, of a process that rests and of one that works."""
LATE_SEC = 5.0
"""Between two looks, which are 1 s apart and up to 1.5 s long; after a longer time the observer was stopped or starved
itself, and begins anew."""
_WORK = 0.1
"""CPU seconds a second below which a process does nothing: idle threads wake now and then, those that wait for the
interpreter's lock 200 times a second."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason to start a process anew, in words and as a label."""

    cause: Cause
    reason: str


class Silence:
    """How long a sign has been missing, and how much the process worked meanwhile."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._cpu_sec = 0.0
        self._looks = self._busy_looks = 0
        self._last = 0.0

    def observe(self, heard: bool, now: float, cpu_sec: float, busy: bool) -> None:
        late = now - self._last > LATE_SEC
        self._last = now
        if heard or late or self._since is None:
            self._since, self._cpu_sec, self._looks, self._busy_looks = now, cpu_sec, 0, 0
        else:
            self._looks += 1
            self._busy_looks += busy

    def lasts(self, resting_sec: float, working_sec: float, now: float, cpu_sec: float) -> bool:
        """Whether it has lasted too long."""
        if self._since is None:
            return False
        seconds = now - self._since
        works = 3 * self._busy_looks > 2 * self._looks or cpu_sec - self._cpu_sec > _WORK * seconds
        return seconds >= (working_sec if works else resting_sec)


class ProcessLiveness:
    """Judges one process by its signs, looked at about once a second."""

    def __init__(self, what: str) -> None:
        """`what` names it in messages."""
        self._what = what
        self._beating, self._answering = Silence(), Silence()
        self._stopped_since: float | None = None
        self._last = 0.0
        self._beat: str | None = None

    def observe(self, signs: Signs, now: float, *, answers: bool | None = None) -> Failure | None:
        """The failure that the signs until now amount to. `answers`: whether it answered a health request just now."""
        cpu_sec, busy = signs.cpu_sec, signs.busy
        if self._is_stopped(signs, now):
            return Failure("stopped", f"{self._what} is stopped (SIGSTOP)")
        if signs.beat is not None:
            self._beating.observe(signs.beat != self._beat, now, cpu_sec, busy)
            self._beat = signs.beat
            if self._beating.lasts(SILENT_SEC, SILENT_AT_WORK_SEC, now, cpu_sec):
                return Failure("hung", f"{self._what} hangs: its interpreter shows no sign of life")
        if answers is not None:
            self._answering.observe(answers, now, cpu_sec, busy)
            if self._answering.lasts(UNANSWERED_SEC, UNANSWERED_AT_WORK_SEC, now, cpu_sec):
                return Failure("hung", f"{self._what} hangs: it answers no health request")
        return None

    def _is_stopped(self, signs: Signs, now: float) -> bool:
        """Whether it has been seen stopped for long enough, counted from the first look at which it was."""
        late, self._last = now - self._last > LATE_SEC, now
        if signs.state != "T":
            self._stopped_since = None
        elif self._stopped_since is None or late:
            self._stopped_since = now
        return self._stopped_since is not None and now - self._stopped_since >= STOPPED_SEC


class LoadLiveness:
    """Judges a load by the CPU time of all that takes part: an hour of building an engine is one, a minute of nothing
    is none."""

    def __init__(self, idle_sec: float) -> None:
        self._idle_sec = idle_sec
        self._silence = Silence()
        self._cpu_sec = 0.0

    def observe(self, cpu_sec: float, busy: bool, now: float) -> bool:
        """Whether nothing has happened for too long."""
        heard = busy or cpu_sec - self._cpu_sec > _WORK
        self._cpu_sec = cpu_sec
        self._silence.observe(heard, now, cpu_sec, busy)
        return self._silence.lasts(self._idle_sec, self._idle_sec, now, cpu_sec)
