"""The python backend's shared memory regions, and the removal of those of killed servers.

Every server names its regions `moulin-<pid namespace>-<owner pid>-<owner start>-<n>-...`, which is also an argument of
each python stub. So a later process can tell which process owns them, and whether it still runs. Containers may share
/dev/shm without seeing each other's processes; the namespace keeps them from removing a live server's regions.
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
    """Delete the regions whose name starts with `prefix`."""
    for region in shm_dir.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def sweep_orphans(shm_dir: Path = SHM_DIR, proc_dir: Path = Path("/proc")) -> list[str]:
    """End python stubs and delete regions whose owning moulin process is dead; return the regions' names.

    tritonserver leaves its stubs running when it exits because a port is busy, for example. Regions of other users are
    not touched, nor those of a tritonserver that is still shutting down after its owner died.
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
    # The start time distinguishes the owner from a later process with the same pid.
    return _start_ticks(int(match["pid"])) != int(match["start"])


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _start_ticks(pid: int) -> int:
    """The start time of a process, in clock ticks since boot; -1 where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return -1
    # The second field is the program's name in parentheses, which may contain spaces.
    return int(stat.rpartition(")")[2].split()[19])
