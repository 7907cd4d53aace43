"""Counted on processes that do a known thing."""

from __future__ import annotations

import os
import subprocess
import sys

from moulin.evaluate.process_usage import cpu_sec_by_process, machine_cpu_sec, memory_bytes, process_tree

# A parent and a child; each fills 50 MB and works until it has used 0.3 s of CPU time, then waits for the end.
_FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=sys.stdin, stdout=sys.stdout) if sys.argv[1:] else 0
filled = b"x" * 50_000_000
while time.process_time() < 0.3:
    pass
print("done", flush=True)
sys.stdin.read()
"""


def test_a_family_is_counted_together() -> None:
    before = machine_cpu_sec()
    with subprocess.Popen(
        [sys.executable, "-c", _FAMILY, _FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == [b"done\n"] * 2
        family = process_tree(parent.pid)
        assert family[0] == parent.pid
        assert len(family) == 2
        assert sum(cpu_sec_by_process(parent.pid).values()) >= 0.5
        assert memory_bytes(parent.pid) > 100_000_000
        assert machine_cpu_sec() - before >= 0.5
        parent.communicate()
    assert cpu_sec_by_process(parent.pid) == {}
    assert memory_bytes(parent.pid) == 0


def test_this_process() -> None:
    assert os.getpid() in process_tree(os.getpid())
    assert memory_bytes(os.getpid()) > 1_000_000
