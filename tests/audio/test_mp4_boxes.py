"""Edit lists of MP4 and QuickTime files: pieces in any order, and pauses before, between and behind them.

The lists are written here by hand; what is heard is compared with the pieces of the speech that they name.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.mp4_boxes import EditList, boxes, edited
from tests.conftest import Recording

from .media import heard, media, shifts_ms

PAUSE = None
Edit = tuple[float, float | None]
"""Seconds, and where in the media they begin; or a pause."""


def inner(data: bytes, *path: bytes) -> tuple[int, int, int]:
    """Begin, content and end of the first box of that path."""
    begin, content, end = 0, 0, len(data)
    for kind in path:
        begin, content, end = next(
            (box.begin, box.content, box.end) for box in boxes(io.BytesIO(data), content, end) if box.kind == kind
        )
    return begin, content, end


def with_edits(data: bytes, edits: Sequence[Edit], *, delay_samples: int = 0, version: int = 0) -> bytes:
    """The file, whose `moov` is behind the samples, with another edit list of its first track."""
    (_, movie, _), (_, track, _) = inner(data, b"moov", b"mvhd"), inner(data, b"moov", b"trak", b"mdia", b"mdhd")
    (units,), (rate,) = (
        struct.unpack(">I", data[movie + 12 : movie + 16]),
        struct.unpack(">I", data[track + 12 : track + 16]),
    )
    entries = b"".join(
        struct.pack(
            ">QqI" if version else ">IiI",
            round(seconds * units),
            -1 if begin is PAUSE else round(begin * rate) + delay_samples,
            1 << 16,
        )
        for seconds, begin in edits
    )
    elst = struct.pack(">I4sB3xI", 16 + len(entries), b"elst", version, len(edits)) + entries
    edts = struct.pack(">I4s", 8 + len(elst), b"edts") + elst
    begin, _, end = inner(data, b"moov", b"trak", b"edts")
    result = bytearray(data[:begin] + edts + data[end:])
    for path in ((b"moov",), (b"moov", b"trak")):
        at, _, box_end = inner(data, *path)
        result[at : at + 4] = struct.pack(">I", box_end - at + len(edts) - (end - begin))
    return bytes(result)


def played(speech: Floats, edits: Sequence[Edit]) -> Floats:
    pieces = [
        np.zeros(round(seconds * 16_000), np.float32)
        if begin is PAUSE
        else speech[round(begin * 16_000) : round((begin + seconds) * 16_000)]
        for seconds, begin in edits
    ]
    return np.concatenate(pieces)


LISTS: dict[str, list[Edit]] = {
    "between": [(3, 0), (7, PAUSE), (4, 3)],
    "before and between": [(2.5, PAUSE), (2, 4), (1.5, PAUSE), (2, 1)],
    "two between": [(2, 0), (2, PAUSE), (2, 2), (3, PAUSE), (3, 4)],
    "behind": [(4, 1), (5, PAUSE)],
    "pieces in another order": [(2, 4), (3, 1)],
    "before, and in another order": [(1.5, PAUSE), (2, 4), (3, 1)],
}


@pytest.mark.parametrize(("container", "codec"), [("mov", "pcm_s16le"), ("mov", "pcm_s24be"), ("mp4", "aac")])
@pytest.mark.parametrize("name", LISTS)
def test_what_is_played(recordings: list[Recording], container: str, codec: str, name: str) -> None:
    speech = recordings[0].waveform
    delay = 1024 if codec == "aac" else 0
    data = with_edits(media(container, codec, speech, rate=16_000), LISTS[name], delay_samples=delay)
    found, warnings = heard(data)
    edits = [edit for edit in LISTS[name] if name != "behind" or edit[1] is not PAUSE]  # a pause at the end is nothing
    expected = played(speech, edits)
    assert len(found) == pytest.approx(len(expected), abs=1600)
    assert max(map(abs, shifts_ms(found, expected, at=(0.02, 0.6, 0.8)))) < 60
    assert warnings == ()


def test_a_list_of_long_times(recordings: list[Recording]) -> None:
    speech = recordings[0].waveform
    data = with_edits(media("mov", "pcm_s16le", speech, rate=16_000), LISTS["between"], version=1)
    assert max(map(abs, shifts_ms(heard(data)[0], played(speech, LISTS["between"])))) < 60


def test_a_pause_that_is_too_long_is_skipped(recordings: list[Recording]) -> None:
    data = media("mov", "pcm_s16le", recordings[0].waveform, rate=16_000)
    found, _ = heard(with_edits(data, [(3, 0), (7200, PAUSE), (4, 3)]))
    assert len(found) == pytest.approx(7207 * 16_000, abs=1600)


def test_a_file_of_one_edit_is_left_as_it_is(recordings: list[Recording]) -> None:
    file = io.BytesIO(media("mov", "pcm_s16le", recordings[0].waveform[:16_000], rate=16_000))
    assert edited(file).file is file
    assert edited(io.BytesIO(b"RIFF")).edits == {}


def test_lists_that_make_no_sense(recordings: list[Recording]) -> None:
    """More entries than the box has, none, and boxes cut anywhere: never more than what FFmpeg makes of them."""
    data = with_edits(media("mov", "pcm_s16le", recordings[0].waveform, rate=16_000), LISTS["between"])
    at = data.index(b"elst")
    more = data[: at + 8] + b"\xff\xff\xff\xff" + data[at + 12 :]
    assert edited(io.BytesIO(more)).edits == {1: EditList(7.0, ((3.0, 7.0),))}
    none = data[: at + 8] + bytes(4) + data[at + 12 :]
    assert edited(io.BytesIO(none)).edits == {}
    for end in range(inner(data, b"moov")[0], len(data), 7):
        edited(io.BytesIO(data[:end]))


def test_a_box_ends_with_the_one_around_it() -> None:
    """Tracks whose boxes are as large as the file were read by each of those before: quadratic time, in 32 kB 21 s."""
    tracks = [struct.pack(">I4sI4s", 16, b"trak", 1 << 31, b"edts")] * 5
    data = struct.pack(">I4s4x4x", 16, b"ftyp") + struct.pack(">I4s", 8 + 80, b"moov") + b"".join(tracks)
    assert [(box.kind, box.end) for box in boxes(io.BytesIO(data), 32, 40)] == [(b"edts", 40)]
    assert edited(io.BytesIO(data)).edits == {}
    huge = struct.pack(">I4sQ", 1, b"free", (1 << 63) + 5) + bytes(16)
    assert edited(io.BytesIO(data[:16] + struct.pack(">I4sQ", 1, b"moov", (1 << 64) - 1) + huge)).edits == {}
