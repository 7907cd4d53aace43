"""What a release wants to find before anything is built; and the installer that `make` uses."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moulin import __version__

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def release() -> Any:
    spec = importlib.util.spec_from_file_location("release", ROOT / "scripts" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_version_is_the_packages(release: Any) -> None:
    assert release.version_of(ROOT) == __version__


@pytest.mark.parametrize(
    ("text", "ready"),
    [
        ("# Changelog\n\n## Unreleased\n\n## 0.2.0 - 2026-12-01\n- More.\n\n## 0.1.0 - 2026-11-01\n- First.\n", True),
        ("# Changelog\n\n## Unreleased\n- More.\n\n## 0.2.0 - 2026-12-01\n- First.\n", False),
        ("# Changelog\n\n## 0.1.0 - 2026-11-01\n- First.\n", False),
    ],
)
def test_the_changelog_begins_with_the_version(release: Any, tmp_path: Path, text: str, ready: bool) -> None:
    (tmp_path / "CHANGELOG.md").write_text(text)
    if ready:
        release.expect_changelog(tmp_path, "0.2.0")
        return
    with pytest.raises(release.NotReady, match=r"Expected CHANGELOG.md to begin with '## 0.2.0"):
        release.expect_changelog(tmp_path, "0.2.0")


def test_images_are_those_that_there_are(release: Any) -> None:
    assert set(release.IMAGES) == {file.name for file in (ROOT / "deploy" / "docker").glob("*.Dockerfile")}


def test_pips_own_words_where_it_fails(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "pip-install.py"), str(tmp_path / "nowhere.whl")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "nowhere.whl" in done.stderr
    assert done.stdout == ""
