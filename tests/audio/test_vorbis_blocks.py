"""Lengths of Vorbis packets, by the sizes of the blocks that they are made of."""

from __future__ import annotations

from itertools import pairwise

import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from moulin.audio.vorbis_blocks import VorbisBlocks
from tests.conftest import Recording

from .media import heard, shifts_ms, wav

SHORT, LONG = 256, 2048


def header(short_log2: int = 8, long_log2: int = 11) -> bytes:
    return b"\x1e" + b"\1vorbis" + bytes(21) + bytes([long_log2 << 4 | short_log2, 1])


@given(st.lists(st.sampled_from([SHORT, LONG]), min_size=2), st.booleans())
def test_lengths_are_right_whatever_ffmpeg_says_of_short_blocks(sizes: list[int], is_wrong: bool) -> None:
    blocks = VorbisBlocks(header())
    blocks.samples(sizes[0] // 2)
    for before, own in pairwise(sizes):
        length = (before + own) // 4
        said = SHORT // 2 if is_wrong and own == SHORT else length
        assert blocks.samples(said) == length


@pytest.mark.parametrize("headers", [b"", b"\1vorbis", b"OpusHead"])
def test_other_codecs_are_left_alone(headers: bytes) -> None:
    blocks = VorbisBlocks(headers)
    assert [blocks.samples(said) for said in (960, 0, 960, 128, 576)] == [960, 0, 960, 128, 576]


def test_a_page_of_many_short_blocks_has_no_pause(recordings: list[Recording]) -> None:
    speech = recordings[8].waveform
    found, warnings = heard(wav(soxr.resample(speech, 16000, 44100), rate=44100, format="OGG", subtype="VORBIS"))
    assert warnings == ()
    assert max(map(abs, shifts_ms(found, speech))) < 1
