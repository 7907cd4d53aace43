from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundles import BUNDLES

CopyBundle = Callable[[str], Path]


@pytest.fixture
def copy_bundle(tmp_path: Path) -> CopyBundle:
    """A copy of a bundle, named alike, that the test may damage."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(BUNDLES / name, tmp_path / name))

    return copy
