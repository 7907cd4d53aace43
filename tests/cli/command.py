"""The `moulin` of this environment as a subprocess, the way a person runs it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import time
import unittest.mock
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from moulin.cli import main
from moulin.launch.cache import cache_dir
from moulin.launch.tritonserver import find_tritonserver

MOULIN = str(Path(sys.executable).with_name("moulin"))
TIMEOUT_SEC = 600
"""Ends what hangs; far more than anything needs on a busy machine."""


@dataclass(frozen=True)
class Finished:
    """The exit status and output of a command."""

    status: int
    out: str
    err: str

    @property
    def undated_err(self) -> str:
        """Standard error without the dates with which a service's lines begin."""
        return re.sub(r"^\d{4}-\d\d-\d\dT[\d:]+[+-]\d{4} ", "", self.err, flags=re.MULTILINE)

    def expect(self, status: int) -> Finished:
        assert self.status == status, f"exit status {self.status}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err, self.err
        return self


def moulin(*arguments: object, stdin: bytes | None = None, environ: dict[str, str] | None = None) -> Finished:
    """Run to the end."""
    done = subprocess.run(
        [MOULIN, *map(str, arguments)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=TIMEOUT_SEC,
        check=False,
        env={**os.environ, **(environ or {})},
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def moulin_here(*arguments: object) -> Finished:
    """The same in this process, for what starts no other process: importing takes a second, with PyTorch two."""
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        unittest.mock.patch.object(sys, "argv", ["moulin", *map(str, arguments)]),
    ):
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
    assert isinstance(status, int)
    return Finished(status, out.getvalue(), err.getvalue())


def eventually(condition: Callable[[], bool], timeout_sec: float = TIMEOUT_SEC) -> bool:
    """Whether `condition` comes true."""
    deadline = time.monotonic() + timeout_sec
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def share_serving_environment(cache: Path) -> None:
    """Where this Python is not Triton's, its environment is made once for all tests: not in each one's `cache` anew."""
    if find_tritonserver().serving is not None:
        (cache / "moulin").mkdir(parents=True)
        (cache / "moulin" / "serving").symlink_to(cache_dir() / "serving")


@dataclass
class Serving:
    """A `moulin serve`, or a shell that runs one, whose output goes to files so that nothing ever blocks."""

    process: subprocess.Popen[bytes]
    cache: Path
    log: Path
    family: set[int] = field(default_factory=set)

    @classmethod
    def start(cls, command: list[str], folder: Path, *, cache: Path | None = None) -> Serving:
        """Output goes to files in `folder`; the cache is there too, unless several share one."""
        folder.mkdir(parents=True, exist_ok=True)
        log, cache = folder / "stderr", cache or folder / "cache"
        if not cache.exists():
            share_serving_environment(cache)
        with log.open("wb") as err, (folder / "stdout").open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "XDG_CACHE_HOME": str(cache)},
            )
        return cls(process, cache, log)

    @property
    def err(self) -> str:
        return self.log.read_text()

    @property
    def out(self) -> str:
        return self.log.with_name("stdout").read_text()

    def wait_ready(self) -> None:
        assert eventually(lambda: "Ctrl-C stops it" in self.err or self.process.poll() is not None, TIMEOUT_SEC)
        assert "Ctrl-C stops it" in self.err, self.err
        self.family = self.find_family()
        assert len(self.family) >= 3, "expected moulin, tritonserver and a python stub"

    @property
    def grpc_url(self) -> str:
        match = re.search(r"gRPC +(\S+)", self.err)
        assert match, self.err
        return match[1]

    @property
    def gateway_address(self) -> str:
        match = re.search(r"OpenAI +https?://(\S+)/v1", self.err)
        assert match, self.err
        return match[1]

    def find_family(self) -> set[int]:
        """moulin, which has our cache in its environment, and all that it started."""
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"XDG_CACHE_HOME={self.cache}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.add(int(process.name))
        return found

    def moulin_pid(self) -> int:
        """Of the `moulin serve` itself, where `process` is a shell around it."""
        for pid in self.family:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"serve" in arguments and arguments[0] != b"sh" and any(a.endswith(b"/moulin") for a in arguments):
                return pid
        raise AssertionError("moulin serve is not running")

    def assert_nothing_left(self, shm_owner: int) -> None:
        assert eventually(lambda: not any(alive(pid) for pid in self.family)), "processes are left"
        assert not [path for path in Path("/dev/shm").iterdir() if f"-{shm_owner}-" in path.name]
        assert list((self.cache / "moulin" / "workspaces").iterdir()) == []

    def kill(self) -> None:
        """For a test that failed: end what it started, by id."""
        for pid in self.find_family() | ({self.process.pid} if self.process.poll() is None else set()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        self.process.wait()
