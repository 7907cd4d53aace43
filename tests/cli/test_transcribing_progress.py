from __future__ import annotations

import pytest

from moulin.audio.source import AudioSource
from moulin.cli import transcribing_progress
from moulin.cli.messages import messages_to
from tests.conftest import Recording


def test_off_a_terminal_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, recordings: list[Recording]) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    sources = [AudioSource(str(recording.file)) for recording in recordings[:2]]
    said: list[str] = []
    with (
        messages_to(lambda _level, text: said.append(text)),
        transcribing_progress.transcribing_progress(sources) as progress,
    ):
        progress.ended(sources[0])
        assert not said
        now = 31.0
        length = sources[1].declared_sec()
        assert length
        progress.heard(sources[1], length / 2)
        progress.heard(sources[1], length)
        assert said == ["Transcribing 2 recordings: 75%"]
