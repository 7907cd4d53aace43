"""Limits on address space, under which libraries fail in the middle of something."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from moulin.launch.address_space import is_out_of_address_space
from tests.last_words import last_words

from .command import MOULIN


def _under(limit_mib: int, *arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    script = f"ulimit -v {limit_mib << 10}; exec {MOULIN} {' '.join(arguments)}"
    return subprocess.run(
        ["env", f"XDG_CACHE_HOME={cache}", "sh", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("limit_mib", [600, 1500])
def test_serve_says_how_much_it_needs(limit_mib: int, tmp_path: Path) -> None:
    done = _under(limit_mib, "serve", cache=tmp_path)
    assert done.returncode == 1
    message, hint = last_words(done.stderr)
    assert message.startswith("Expected at least 2.5 GiB of address space (ulimit -v), got ")
    assert hint


@pytest.mark.parametrize("limit_mib", [90, 130, 200, 400])
def test_any_command_says_so_rather_than_hang(limit_mib: int, tmp_path: Path) -> None:
    done = _under(limit_mib, "transcribe", "nothing.wav", cache=tmp_path)
    assert done.returncode == 1
    first, hint = done.stderr.splitlines()
    assert first.startswith("moulin: Expected at least 0.5 GiB of address space (ulimit -v), got ")
    assert hint.startswith("  hint: ")


@pytest.mark.parametrize("said", ["Couldn't build proto file into descriptor pool: out of memory", "std::bad_alloc"])
def test_what_libraries_say_without_a_limit_is_their_own(said: str) -> None:
    assert not is_out_of_address_space(TypeError(said))
