"""Files that keep a decoder at work and give no sound, or much more than they hold: they end early, with a reason."""

from __future__ import annotations

import io
import time
from fractions import Fraction

import av
import numpy as np
import pytest

from moulin.audio import patience
from moulin.audio.recording import Recording, opened_recordings
from moulin.audio.selection import Selection
from moulin.audio.timeline import Skip
from moulin.errors import AudioError, AudioTooLong
from tests.audio.media import heard, media, wav

AMR = b"#!AMR\n"
NO_SPEECH = b"\x7c"
"""A frame of AMR without data, which FFmpeg refuses at the cost of a packet."""
SPEECH = b"\x04" + bytes(12)
LIMIT_SEC = 0.3


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WITHOUT_SOUND_SEC", LIMIT_SEC)


def used_sec(source: bytes, selection: Selection = Selection()) -> float:  # noqa: B008
    """CPU time until the recording is refused."""
    started = time.thread_time()
    with pytest.raises(AudioError):
        heard(source, selection)
    return time.thread_time() - started


@pytest.mark.parametrize(
    "source",
    [
        AMR + NO_SPEECH * 2_000_000,
        AMR + b"\x54" * 2_000_000,
        wav(np.zeros(8, np.float32))[:36] + (b"junk" + bytes(4)) * 2_000_000,
        b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * 2_000_000,
        (b"ID3\x03\0\0" + bytes(4)) * 2_000_000,
    ],
    ids=["AMR without data", "AMR reserved", "WAV of chunks", "MP4 of boxes", "tags of MP3"],
)
def test_work_without_sound_ends(source: bytes) -> None:
    assert used_sec(source) < 2 * LIMIT_SEC + 1


def test_what_came_before_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    found, warnings = heard(AMR + SPEECH * 100 + NO_SPEECH * 1_000_000)
    assert len(found) == pytest.approx(100 * 0.02 * 16_000, abs=400)
    assert warnings == (
        f"the file is damaged or cut short ({LIMIT_SEC:g} s of work have given no sound); what could be decoded was",
    )
    assert capfd.readouterr() == ("", "")  # PyAV prints what it has to drop


def test_who_takes_the_sound_may_take_time() -> None:
    blocks = Recording(AMR + SPEECH * 10_000)
    next(blocks)
    until = time.thread_time() + LIMIT_SEC + 0.1
    while time.thread_time() < until:
        pass
    assert sum(len(block) for block in blocks if not isinstance(block, Skip)) > 150 * 16_000
    assert blocks.warnings == ()


def test_tracks_are_looked_at_within_bounds() -> None:
    started = time.thread_time()
    found, warnings = heard(media("matroska", "pcm_s16le", *[np.zeros(1600, np.float32)] * 300, rate=16000))
    assert len(found) == 1600
    assert "300 audio tracks, of which number 1 was transcribed" in warnings[0]
    assert time.thread_time() - started < 5


@pytest.mark.parametrize(
    ("source", "selection", "said"),
    [
        (wav(*[np.zeros(100, np.float32)] * 65), Selection(), "65 channels, expected at most 64 to be mixed"),
        (wav(*[np.zeros(100, np.float32)] * 1001), Selection("each"), "1001 channels, expected at most 64 that are"),
        (
            media("matroska", "pcm_s16le", *[np.zeros(160, np.float32)] * 65, rate=16000),
            Selection(track="all"),
            "65 tracks, expected at most 64 that are",
        ),
    ],
    ids=["mix", "each", "all"],
)
def test_channels_and_tracks_are_bounded(source: bytes, selection: Selection, said: str) -> None:
    with pytest.raises(AudioError, match=said):
        list(opened_recordings(source, selection)[0][1])


def test_one_of_many_channels() -> None:
    channels = [np.full(1000, number / 100, np.float32) for number in range(66)]
    found, _ = heard(wav(*channels), Selection("50"))
    np.testing.assert_allclose(found, 0.49, atol=1e-4)


def test_gaps_that_are_skipped_count() -> None:
    """Each makes the model hear a piece; a file of ten bytes a gap could stand for any number of them."""
    gap_sec, count = 61, 50
    source = matroska_with_gaps(gap_sec, count)
    found, _ = heard(source)
    assert len(found) / 16_000 == pytest.approx(gap_sec * (count - 1), abs=1)
    with pytest.raises(AudioTooLong):
        heard(source, max_duration_sec=10 * (count - 2))


def matroska_with_gaps(gap_sec: int, count: int) -> bytes:
    """Packets of ten milliseconds, `gap_sec` apart."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        stream = output.add_stream("pcm_u8", rate=8000)
        stream.layout = "mono"
        for number in range(count):
            frame = av.AudioFrame.from_ndarray(np.full((1, 80), 128, np.uint8), format="u8", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 8000, Fraction(1, 8000), number * gap_sec * 8000
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()
