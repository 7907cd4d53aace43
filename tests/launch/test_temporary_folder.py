"""The folder for temporary files, missing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from moulin.errors import LaunchError
from moulin.launch.temporary_folder import expect_temporary_folder


def test_one_that_can_be_written() -> None:
    expect_temporary_folder()


def test_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(LaunchError, match="Expected a folder for temporary files that can be written"):
        expect_temporary_folder()
