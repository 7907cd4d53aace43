"""CPU time and memory of a process and its descendants, and CPU time of the whole machine."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_sec_by_process(pid: int) -> dict[int, float]:
    """User and system seconds so far of `pid` and of each of its living descendants."""
    seconds = {}
    for process in process_tree(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        seconds[process] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_SEC
    return seconds


def machine_cpu_sec() -> float:
    """Seconds so far in which cores of this machine worked for any process, or waited for the machine's host."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_SEC


def memory_bytes(pid: int) -> int:
    """Resident memory of `pid` and its living descendants; pages that they share count in each."""
    pages = 0
    for process in process_tree(pid):
        try:
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * _PAGE_BYTES


def process_tree(pid: int) -> list[int]:
    """`pid` and its descendants; those that end meanwhile are left out."""
    found = [pid]
    for process in found:
        try:
            children = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children")]
        except OSError:
            continue
        found += [int(child) for line in children for child in line.split()]
    return found
