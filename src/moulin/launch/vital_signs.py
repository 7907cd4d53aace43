"""Signs of life of another process, as /proc shows them: nothing is asked of the process itself.

A model's process also counts once a second in the name of one of its threads (`heartbeat.py`): a process
that is alive for the kernel, but whose interpreter is stuck, no longer does.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

BEAT = "moulin-beat-"
"""The beginning of the name of the thread that counts; at most three digits follow."""

_TICK_SEC = 1 / os.sysconf("SC_CLK_TCK")
_STATE, _PARENT, _UTIME, _CHILDREN_STIME = 0, 1, 11, 14  # fields of /proc/PID/stat behind the program's name


@dataclass(frozen=True, slots=True)
class Signs:
    """A process at one moment. `state` is the kernel's letter, T for a process that a signal has stopped."""

    state: str
    cpu_sec: float
    """CPU time so far, with that of children that have ended."""
    busy: bool
    """Whether a thread runs, waits for a CPU, or waits for a disk."""
    beat: str | None
    """The count in a thread's name; None without such a thread."""


def signs_of(pid: int, proc_dir: Path = Path("/proc")) -> Signs | None:
    """The signs of a process; None where it has ended."""
    try:
        fields = stat_fields(proc_dir / str(pid))
    except OSError:
        return None
    if fields[_STATE] in "ZX":
        return None
    states, beat = [fields[_STATE]], None
    for task in (proc_dir / str(pid) / "task").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, rest = (task / "stat").read_text(errors="replace").partition("(")[2].rpartition(")")
            states.append(rest.split()[_STATE])
            if name.startswith(BEAT):
                beat = name
    return Signs(fields[_STATE], _cpu_sec(fields), bool({"R", "D"} & set(states)), beat)


def family(pid: int, proc_dir: Path = Path("/proc")) -> dict[int, list[str]]:
    """A process and all below it: process ids, and the fields of their `stat` as `stat_fields` gives them."""
    by_parent: dict[int, list[int]] = {}
    found: dict[int, list[str]] = {}
    for process in proc_dir.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = found[int(process.name)] = stat_fields(process)
            by_parent.setdefault(int(fields[_PARENT]), []).append(int(process.name))
    members = [pid] if pid in found else []
    for member in members:
        members += by_parent.get(member, [])
    return {member: found[member] for member in members}


def family_activity(pid: int, proc_dir: Path = Path("/proc")) -> tuple[float, bool]:
    """CPU seconds of a process and of all below it, and whether one of them is busy."""
    members = family(pid, proc_dir).values()
    return sum(map(_cpu_sec, members)), any(fields[_STATE] in "RD" for fields in members)


def stat_fields(process: Path) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the program's name before them may contain spaces."""
    return (process / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _cpu_sec(fields: list[str]) -> float:
    return sum(map(int, fields[_UTIME : _CHILDREN_STIME + 1])) * _TICK_SEC
