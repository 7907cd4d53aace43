"""Digests against git's and coreutils' own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from moulin.fetch.digest import Digest


@pytest.mark.parametrize(
    ("kind", "command"), [("git", ["git", "hash-object"]), ("sha256", ["sha256sum"])], ids=["git", "sha256"]
)
@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_of_a_file(kind: str, command: list[str], size: int, tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    file = tmp_path / "file"
    file.write_bytes(bytes(range(251)) * (size // 251) + b"x" * (size % 251))
    wanted = subprocess.run([*command, str(file)], capture_output=True, text=True, check=True).stdout.split()[0]
    assert Digest("git" if kind == "git" else "sha256", "").of(file) == wanted
