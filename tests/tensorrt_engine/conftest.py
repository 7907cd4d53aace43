from __future__ import annotations

from pathlib import Path

import pytest

from tests.tensorrt_stand_in import StandIn, install


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIn:
    return install(monkeypatch, tmp_path / "cache")
