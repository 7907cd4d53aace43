from __future__ import annotations

import threading

import pytest
from rich.console import Console
from rich.progress import Progress

from moulin.cli import steps
from moulin.cli.messages import messages_to


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


def test_off_a_terminal_a_long_step_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "_AGAIN_SEC", 0.01)
    said: list[str] = []
    again = threading.Event()

    def hear(_level: int, text: str) -> None:
        said.append(text)
        if "3 of 40" in text:
            again.set()

    with messages_to(hear):
        with steps.step("Comparing") as far:
            far(3, 40)
            assert again.wait(60)
        ended = len(said)
    assert said[0] == "Comparing"
    assert "Comparing: 3 of 40, 0 s so far" in said
    assert len(said) == ended
