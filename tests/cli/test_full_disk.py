"""Disks that are full, read-only or forbidden, each a small file system in a mount namespace of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.last_words import last_words

from .command import MOULIN

PORTS = "--http-port=0 --grpc-port=0 --metrics-port=0 --gateway-port=0"


def _in_namespace(script: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--mount", "sh", "-ec", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module", autouse=True)
def _allowed() -> None:
    if _in_namespace("mount -t tmpfs -o size=64k x /mnt").returncode:
        pytest.skip("mount namespaces are not allowed here")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ("mount -t tmpfs -o ro,size=1m x {cache}", "Read-only file system"),
        ("mount -t tmpfs -o size=64k x {cache}; head -c 60000 /dev/zero > {cache}/fill", "No space left on device"),
        ("mount -t tmpfs -o nr_inodes=6 x {cache}", "No space left on device"),
        ("touch {cache}/moulin", "Not a directory"),
        ("mount -t tmpfs -o size=1m x /dev/shm", "MiB of shared memory free in /dev/shm, got 1 MiB"),
        (
            "for d in /tmp /var/tmp; do mount --bind $d $d; mount -o remount,bind,ro $d; done; "
            "mount -t tmpfs x {cache}; cd /proc",
            "Expected a folder for temporary files that can be written, for uploads, got: No usable temporary",
        ),
        ("mount -t tmpfs -o ro x /dev/shm", "Expected shared memory that can be written in /dev/shm"),
    ],
)
def test_a_start_says_so_in_a_line(prepare: str, message: str, tmp_path: Path) -> None:
    serve = f"exec env XDG_CACHE_HOME={tmp_path} {MOULIN} serve {PORTS}"
    done = _in_namespace(f"{prepare.format(cache=tmp_path)}; {serve}")
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if " Loading " not in line]
    assert message in last_words("\n".join(lines))[0]


def test_a_start_counts_the_instances(tmp_path: Path) -> None:
    """Of the demo models, with which one of each would do."""
    serve = f"exec env XDG_CACHE_HOME={tmp_path} {MOULIN} serve --instances 3 {PORTS}"
    done = _in_namespace(f"mount -t tmpfs -o size=10m x /dev/shm; {serve}")
    assert done.returncode == 1
    assert "Expected at least 24 MiB of shared memory free in /dev/shm, got 10 MiB" in done.stderr
