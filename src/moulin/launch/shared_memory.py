"""The python backend's shared memory, and what a server that was killed leaves behind.

Every server names its regions `moulin-<pid namespace>-<owner pid>-<owner start>-<n>-...`; the same name is an
argument of each python stub. So whoever comes later can tell whose they are, and whether the owner still lives.
Containers may share /dev/shm without seeing each other's processes: the namespace keeps them from sweeping a
live server.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
from pathlib import Path

SHM_DIR = Path("/dev/shm")
_NAME = re.compile(r"^moulin-(?P<namespace>\d+)-(?P<pid>\d+)-(?P<start>\d+)-\d+-")
_counter = itertools.count()


def region_prefix() -> str:
    """A `shm-region-prefix-name` that no other server on this machine has."""
    pid = os.getpid()
    return f"moulin-{_pid_namespace()}-{pid}-{_start_ticks(pid)}-{next(_counter)}-"


def remove_regions(prefix: str, shm_dir: Path = SHM_DIR) -> None:
    """Delete the regions whose name starts with `prefix`; missing ones are fine."""
    for region in shm_dir.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def sweep_orphans(shm_dir: Path = SHM_DIR, proc_dir: Path = Path("/proc")) -> list[str]:
    """End python stubs and delete regions whose owning moulin process is dead; return the regions' names.

    tritonserver leaves its stubs running when it exits because a port is busy, for example. Regions of other
    users are left alone. A dead owner's tritonserver may still be shutting down: its regions are left too.
    """
    busy: set[str] = set()
    for process in proc_dir.glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        program = Path(arguments[0]).name
        if program == "tritonserver":
            busy.update(m[0] for a in arguments if (m := _NAME.match(a.rpartition("shm-region-prefix-name=")[2])))
    for process in proc_dir.glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if Path(arguments[0]).name == "triton_python_backend_stub" and any(
                _is_orphan(argument, busy) for argument in arguments
            ):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            continue
    removed = []
    for region in shm_dir.glob("moulin-*"):
        if _is_orphan(region.name, busy):
            try:
                region.unlink()
            except OSError:
                continue
            removed.append(region.name)
    return removed


def _is_orphan(name: str, busy: set[str]) -> bool:
    match = _NAME.match(name)
    if match is None or match[0] in busy or int(match["namespace"]) != _pid_namespace():
        return False
    # The start time tells the owner from a later process that got the same pid.
    return _start_ticks(int(match["pid"])) != int(match["start"])


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; -1 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return -1
    # The second field is the program's name in parentheses and may hold spaces.
    return int(stat.rpartition(")")[2].split()[19])
