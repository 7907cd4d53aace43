"""The search for a Python in which Triton's stub runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.errors import LaunchError
from moulin.launch.interpreters import find_interpreter


def test_no_python_that_suits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moulin.launch.interpreters._candidates", lambda *_arguments: iter(()))
    with pytest.raises(LaunchError, match=r"Expected Python 3\.12 or 3\.11") as caught:
        find_interpreter(tmp_path)
    assert "apt-get install" in str(caught.value.hint)
