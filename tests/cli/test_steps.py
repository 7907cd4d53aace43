from __future__ import annotations

import pytest
from rich.console import Console
from rich.progress import Progress

from moulin.cli import steps


def test_a_long_text_leaves_room_for_the_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "bars_are_shown", lambda: True)
    monkeypatch.setattr(
        steps, "bars", lambda *columns: Progress(*columns, console=Console(width=80, force_terminal=True, stderr=True))
    )
    with steps.step("Comparing " + "this and that " * 20):
        pass
    assert "0:00:00" in capsys.readouterr().err
