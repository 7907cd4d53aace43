"""Limits on threads and processes. Root is above them, so a test under root becomes a user without processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from moulin.errors import LaunchError
from moulin.launch import threads
from moulin.launch.threads import expect_threads, service_needs, startable
from tests.last_words import last_words

_NOBODY = 65531
_MOULIN = "from moulin.cli import main; main()"


def _under(limit: int, *command: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """`command` as a user with no other threads, who may have `limit` of them."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv (util-linux), to run as a user without other processes")
    cache.chmod(0o777)
    caps = "-all,+dac_override"  # to read this installation, wherever it lies
    user = ["setpriv", f"--reuid={_NOBODY}", "--clear-groups", f"--inh-caps={caps}", f"--ambient-caps={caps}"]
    limited = ["bash", "-c", f'ulimit -u {limit}; exec "$@"', "bash"]
    environment = os.environ | {"HOME": str(cache), "XDG_CACHE_HOME": str(cache), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [*user, *limited, *command], capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def test_threads_are_counted_and_end() -> None:
    before = threading.stack_size()
    assert startable(40) == 40
    assert threading.stack_size() == before
    expect_threads(40, "a test")


def test_too_few_is_an_error_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "startable", lambda _wanted: 7)
    with pytest.raises(LaunchError, match=r"Expected room for 40 threads and processes \(ulimit -u\) for it, got 7"):
        expect_threads(40, "it")


def test_what_a_service_needs_grows_with_its_processes() -> None:
    assert 110 < service_needs(1, gateways=0) < service_needs(2, gateways=0) < service_needs(2, gateways=1)


def test_the_limit_of_a_user_is_found(tmp_path: Path) -> None:
    code = "from moulin.launch.threads import startable; print(startable(100))"
    done = _under(30, sys.executable, "-c", code, cache=tmp_path)
    assert done.stdout == "29\n"


@pytest.mark.parametrize("limit", [3, 60])
def test_serve_and_gateway_refuse_at_the_start(limit: int, tmp_path: Path) -> None:
    for verb, ports in (("serve", ("--grpc-port", "0", "--http-port", "0")), ("gateway", ("--port", "0"))):
        done = _under(limit, sys.executable, "-c", _MOULIN, verb, *ports, cache=tmp_path)
        assert done.returncode == 1
        message, hint = last_words(done.stderr)
        assert message.startswith("Expected room for ")
        assert int(message.rpartition("got ")[2]) in (limit - 2, limit - 3)  # the gateway's log has a thread
        assert hint.startswith("raise it: `ulimit -u 4096`")


def test_any_command_without_a_thread_fails_in_a_line(tmp_path: Path) -> None:
    done = _under(1, sys.executable, "-c", _MOULIN, "inspect", "nothing", cache=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "moulin: No more threads can be started (ulimit -u)"
