"""Pauses in Ogg streams, as writers make them, and pages that were lost: at the right place, and told apart.

FFmpeg here has no encoder for Vorbis: of a file by libsndfile, the times of pages are written anew.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.live_input import LiveInput
from tests.conftest import Recording

from .media import Track, heard, media, shifts_ms, wav

GAP_SEC = 7.0


def pages_of(data: bytes) -> list[bytes]:
    pages, at = [], 0
    while at < len(data):
        segments = data[at + 27 : at + 27 + data[at + 26]]
        end = at + 27 + len(segments) + sum(segments)
        pages.append(data[at:end])
        at = end
    return pages


def later(page: bytes, samples: int) -> bytes:
    """The page with a later time and its checksum."""
    (time,) = struct.unpack("<q", page[6:14])
    page = page[:6] + struct.pack("<q", time + samples) + page[14:22] + bytes(4) + page[26:]
    return page[:22] + struct.pack("<I", checksum(page)) + page[26:]


def checksum(data: bytes) -> int:
    """CRC-32 with the polynomial 04C11DB7, not reflected, from 0 (RFC 3533, section 6)."""
    value = 0
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 1 << 31 else 0)) & 0xFFFFFFFF
    return value


def paused(speech: Floats, at: int, seconds: float = GAP_SEC) -> Floats:
    return np.concatenate([speech[:at], np.zeros(round(seconds * 16_000), np.float32), speech[at:]])


@pytest.mark.parametrize("codec", ["libopus", "flac"])
@pytest.mark.parametrize("at_sec", [1.5, 3.0, 4.4, 6.1])
def test_a_pause_by_ffmpeg(recordings: list[Recording], codec: str, at_sec: float) -> None:
    """FFmpeg ends a page with the first packet behind the pause."""
    speech = recordings[0].waveform
    found, warnings = heard(media("ogg", codec, Track(speech, gap_at_sec=at_sec, gap_sec=GAP_SEC)))
    assert max(map(abs, shifts_ms(found, paused(speech, round(at_sec * 16_000)), at=(0.05, 0.2, 0.9)))) < 110
    assert warnings == ()


@pytest.mark.parametrize("number", [4, 6, -1])
def test_a_pause_in_vorbis(recordings: list[Recording], number: int) -> None:
    """Within a page as long as the others: before its last packet."""
    speech = recordings[0].waveform
    pages = pages_of(wav(speech, format="OGG", subtype="VORBIS"))
    number %= len(pages)
    (end,) = struct.unpack("<q", pages[number][6:14])
    moved = [later(page, round(GAP_SEC * 16_000)) for page in pages[number:]]
    found, warnings = heard(b"".join(pages[:number] + moved))
    assert len(found) == pytest.approx(len(speech) + GAP_SEC * 16_000, abs=800)
    assert max(map(abs, shifts_ms(found[: end - 1024], speech[: end - 1024]))) < 5
    if number < len(pages) - 1:
        behind = found[end + round(GAP_SEC * 16_000) :]
        assert max(map(abs, shifts_ms(behind, speech[end:]))) < 5
    assert warnings == ()


def test_a_page_that_was_closed_before_the_pause(recordings: list[Recording]) -> None:
    """As by a writer that ends a page when nothing comes: the next one is longer, and begins behind the pause."""
    speech = recordings[0].waveform
    short, long = {"page_duration": "200000"}, {"page_duration": "1000000"}
    first = pages_of(media("ogg", "libopus", speech, options=short))
    second = pages_of(media("ogg", "libopus", speech, options=long))
    two_sec, three_sec = 2 * 48_000, 3 * 48_000
    begin = [page for page in first if struct.unpack("<q", page[6:14])[0] <= two_sec]
    rest = [page for page in second if struct.unpack("<q", page[6:14])[0] >= three_sec]
    pages = [*begin, *(later(page, round(GAP_SEC * 48_000)) for page in rest)]
    serial = begin[0][14:18]
    numbered = [
        later(page[:14] + serial + struct.pack("<I", number) + page[22:], 0) for number, page in enumerate(pages)
    ]
    found, warnings = heard(b"".join(numbered))
    assert max(map(abs, shifts_ms(found, paused(speech, 2 * 16_000), at=(0.05, 0.7, 0.9)))) < 45
    assert warnings == ()


@pytest.mark.parametrize("kind", ["libopus", "flac", "VORBIS"])
def test_a_page_that_was_lost(recordings: list[Recording], kind: str) -> None:
    speech = recordings[0].waveform
    is_vorbis = kind == "VORBIS"
    pages = pages_of(wav(speech, format="OGG", subtype=kind) if is_vorbis else media("ogg", kind, speech))
    begin, end = (struct.unpack("<q", page[6:14])[0] / (16_000 if is_vorbis else 48_000) for page in pages[4:6])
    found, (warning,) = heard(b"".join(pages[:5] + pages[6:]))
    assert "s are missing" in warning
    silent = found[round((begin + 0.1) * 16_000) : round((end - 0.1) * 16_000)]
    assert np.abs(silent).max() < 0.01
    rest = round((end + 0.1) * 16_000)
    assert max(map(abs, shifts_ms(found[rest:], speech[rest:]))) < 30


def test_a_time_that_is_too_late_is_wrong(recordings: list[Recording]) -> None:
    speech = recordings[0].waveform
    pages = pages_of(media("ogg", "libopus", speech))
    middle = len(pages) // 2
    found, warnings = heard(b"".join([*pages[:middle], later(pages[middle], 1 << 60), *pages[middle + 1 :]]))
    assert len(found) == pytest.approx(len(speech), abs=1600)
    assert warnings == ("time stamps jump by more than 100 hours; times go on without such a jump",)


@pytest.mark.parametrize("kind", ["libopus", "VORBIS"])
@pytest.mark.parametrize("number", [3, 5, 7])
def test_a_page_whose_time_is_zero(recordings: list[Recording], kind: str, number: int) -> None:
    """A clock that begins anew and is back with the next page makes no silence."""
    speech = recordings[0].waveform
    is_vorbis = kind == "VORBIS"
    pages = pages_of(wav(speech, format="OGG", subtype=kind) if is_vorbis else media("ogg", kind, speech))
    pages[number] = later(pages[number], -struct.unpack("<q", pages[number][6:14])[0])
    found, warnings = heard(b"".join(pages))
    assert len(found) == pytest.approx(len(speech), abs=400)
    assert max(map(abs, shifts_ms(found, speech))) < 5
    assert warnings == ()


def test_vorbis_of_several_pages_is_in_time(recordings: list[Recording]) -> None:
    """The sums of its packets' lengths by FFmpeg are a little less than a page's time says, which is no gap."""
    speech = recordings[0].waveform
    found, warnings = heard(wav(speech, format="OGG", subtype="VORBIS"))
    assert len(found) == pytest.approx(len(speech), abs=16)
    assert max(map(abs, shifts_ms(found, speech))) < 2
    assert warnings == ()


def test_vorbis_of_one_page_while_it_is_written(recordings: list[Recording], tmp_path: Path) -> None:
    speech = recordings[0].waveform[:14_000]
    (tmp_path / "short.ogg").write_bytes(wav(speech, format="OGG", subtype="VORBIS"))
    with (tmp_path / "short.ogg").open("rb", buffering=0) as file:
        live = LiveInput(file.fileno(), "pipe")
        found = np.concatenate(list(live))
        live.close()
    assert max(map(abs, shifts_ms(found, speech, at=(0.5, 0.7)))) < 2
    assert live.warnings == ()
