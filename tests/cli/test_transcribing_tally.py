"""The closing line of many recordings."""

from __future__ import annotations

import pytest

from moulin.audio.source import AudioSource
from moulin.cli.transcribing_tally import Tally
from moulin.errors import AudioError
from moulin.outcome import Outcome
from moulin.transcript import Transcript


@pytest.mark.parametrize(
    ("failures", "line"),
    [
        (0, "201 files, 27 min of audio in 87 s, 18.6 times real time"),
        (1, "202 files, 27 min of audio in 87 s, 18.6 times real time; 1 failed: bad-0.wav"),
        (
            5,
            "206 files, 27 min of audio in 87 s, 18.6 times real time; 5 failed: bad-0.wav, bad-1.wav, bad-2.wav "
            "and 2 more",
        ),
    ],
)
def test_the_line(failures: int, line: str) -> None:
    tally = Tally()
    for number in range(201):
        tally.add(Outcome(AudioSource(f"{number}.wav"), Transcript("ONE", (), duration_sec=8.06)))
    for number in range(failures):
        tally.add(Outcome(AudioSource(f"bad-{number}.wav"), AudioError("no audio")))
    assert tally.line_after(87.2) == line
