"""Recordings as people have them: several files in one, late tracks, gaps, inverted channels, cut files.

What is heard is compared with the sound that went in, at its place on the container's time axis.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import tracemalloc
from collections.abc import Sequence

import av
import numpy as np
import pytest
import soxr

from moulin.arrays import Floats
from moulin.audio.parts import parts_of
from moulin.audio.recording import Recording, opened_recordings, selected
from moulin.audio.selection import Selection
from moulin.audio.timeline import Skip, Timeline
from moulin.errors import AudioError, AudioTooLong, OptionsError
from tests.conftest import Recording as Clip

from .media import Track, heard, media, shifts_ms, wav


@pytest.fixture(scope="module")
def speech(recordings: list[Clip]) -> Floats:
    """Eight seconds of speech at 16 kHz."""
    return recordings[0].waveform


def silence(seconds: float) -> Floats:
    return np.zeros(round(seconds * 16000), np.float32)


def near(found: Floats, expected: Floats, *, within_ms: float = 30.0) -> None:
    """The same sound at the same time, to the end."""
    assert len(found) == pytest.approx(len(expected), abs=16 * max(2 * within_ms, 80))
    assert max(map(abs, shifts_ms(found, expected))) <= within_ms


def test_a_container_that_only_ffmpeg_reads_at_16_bits(speech: Floats) -> None:
    found, warnings = heard(media("voc", "pcm_s16le", speech))
    near(found, speech)
    assert warnings == ()


# Several files in one.

LIBSNDFILE = [
    ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("CAF", "PCM_16"), ("AU", "PCM_16"), ("W64", "PCM_16"),
    ("RF64", "PCM_16"),
]  # fmt: skip
FFMPEG = [
    ("mp3", "libmp3lame"), ("adts", "aac"), ("flac", "flac"), ("ogg", "libopus"), ("ogg", "flac"), ("webm", "libopus"),
    ("matroska", "aac"), ("mp4", "aac"), ("mov", "pcm_s16le"), ("avi", "libmp3lame"), ("asf", "wmav2"),
    ("mpegts", "aac"), ("wv", "wavpack"), ("tta", "tta"), ("mp2", "mp2"), ("ac3", "ac3"), ("flv", "aac"),
]  # fmt: skip


def by_libsndfile(speech: Floats, format: str, subtype: str) -> bytes:
    return wav(speech, format=format, subtype=subtype)


@pytest.mark.parametrize(("format", "subtype"), LIBSNDFILE)
def test_files_joined_are_heard_to_the_end(speech: Floats, format: str, subtype: str) -> None:
    one = by_libsndfile(speech, format, subtype)
    found, warnings = heard(one * 3)
    near(found, np.concatenate([speech] * 3))
    assert warnings == ()


@pytest.mark.parametrize(("container", "codec"), FFMPEG)
def test_files_of_ffmpeg_joined_are_heard_to_the_end(speech: Floats, container: str, codec: str) -> None:
    found, warnings = heard(media(container, codec, speech) * 3)
    # Of WMA, every file of three has 43 ms of silence that nothing declares.
    near(found, np.concatenate([speech] * 3), within_ms=190 if codec == "wmav2" else 100)
    assert warnings == ()


def test_without_pyav_joined_files_are_heard_too(speech: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    for format, subtype in LIBSNDFILE:
        found, _ = heard(by_libsndfile(speech, format, subtype) * 2)
        near(found, np.concatenate([speech] * 2), within_ms=60)


@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("ogg", "libopus"), ("adts", "aac")])
def test_a_rate_and_channels_that_change(speech: Floats, container: str, codec: str) -> None:
    stereo = np.stack([speech, speech], axis=1)
    rates = (48000, 48000, 48000) if codec == "libopus" else (44100, 16000, 48000)
    parts = [
        media(container, codec, sound, rate=rate) for sound, rate in zip((speech, stereo, speech), rates, strict=True)
    ]
    found, warnings = heard(b"".join(parts))
    near(found, np.concatenate([speech] * 3), within_ms=200)
    assert warnings == ()


def test_an_mp3_without_tags_whose_rate_changes(speech: Floats) -> None:
    plain = {"id3v2_version": "0", "write_xing": "0"}
    parts = [media("mp3", "libmp3lame", speech, rate=rate, options=plain) for rate in (44100, 16000, 24000)]
    found, warnings = heard(b"".join(parts))
    near(found, np.concatenate([speech] * 3), within_ms=250)
    assert warnings == ()


TAG = b"ID3\x03\x00\x00\x00\x00\x07\x68" + bytes(1000)
WITH_FOOTER = b"ID3\x04\x00\x10\x00\x00\x07\x68" + bytes(1000) + b"3DI\x04\x00\x10\x00\x00\x07\x68"


@pytest.mark.parametrize("tags", [TAG, TAG * 3, WITH_FOOTER, WITH_FOOTER + TAG], ids=["1", "3", "footer", "both"])
def test_tags_before_an_mp3_are_no_files(speech: Floats, tags: bytes) -> None:
    one = tags + media("mp3", "libmp3lame", speech, options={"id3v2_version": "0"})
    found, warnings = heard(one * 2)
    near(found, np.concatenate([speech] * 2), within_ms=3)
    assert warnings == ()


def test_two_chunks_of_samples_in_a_wav(speech: Floats) -> None:
    """Some recorders write one for each take; libsndfile reads the last, FFmpeg the first."""
    takes = [(take * 32767).astype("<i2").tobytes() for take in (speech[:40_000], speech[40_000:])]
    chunks = b"".join(b"data" + struct.pack("<I", len(take)) + take for take in takes)
    header = wav(speech)[12:36]
    data = b"RIFF" + struct.pack("<I", 4 + len(header) + len(chunks)) + b"WAVE" + header + chunks
    found, warnings = heard(data)
    near(found, speech, within_ms=1)
    assert warnings == ()


def voc(samples: Floats) -> bytes:
    """A Creative Voice File of two blocks."""
    data = (samples * 32767).astype("<i2").tobytes()
    first, second = struct.pack("<IBBH4x", 16000, 16, 1, 4) + data[:99_000], data[99_000:]
    blocks = b"".join(
        bytes([kind]) + len(block).to_bytes(3, "little") + block for kind, block in ((9, first), (2, second))
    )
    return b"Creative Voice File\x1a\x1a\x00\x14\x01\x1f\x11" + blocks + b"\0"


@pytest.mark.parametrize("kind", ["pcm_f32le", "pcm_mulaw", "voc"])
def test_samples_that_libsndfile_takes_for_others(speech: Floats, kind: str) -> None:
    """It gives noise, of the right length, without an error."""
    data = voc(speech) if kind == "voc" else media("w64", kind, np.stack([speech] * 6, axis=1), rate=16000)
    found, warnings = heard(data)
    length = min(len(found), len(speech))
    assert len(speech) - 16 < length
    assert np.corrcoef(found[:length], speech[:length])[0, 1] > 0.99
    assert warnings == ()


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), bytes(5000)], ids=["tag", "zeros"])
def test_what_follows_a_flac_is_no_damage(speech: Floats, tail: bytes) -> None:
    found, warnings = heard(wav(speech, format="FLAC") + tail)
    near(found, speech, within_ms=1)
    assert warnings == ()


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_mp3_in_a_wav_is_whole_and_not_late(speech: Floats, rate: int) -> None:
    """libsndfile, which decodes it too, leaves the encoder's delay."""
    found, warnings = heard(media("wav", "libmp3lame", speech, rate=rate))
    near(found, speech, within_ms=3)
    assert warnings == ()


def test_joined_wavs_of_different_rates(speech: Floats) -> None:
    narrow = soxr.resample(speech, 16000, 8000)
    found, warnings = heard(wav(speech) + wav(narrow, narrow, rate=8000) + wav(speech))
    near(found, np.concatenate([speech] * 3), within_ms=1)
    assert warnings == ()


# Headers that are wrong about the length.


@pytest.mark.parametrize("declared_sec", [0.5, 3.0, 0.0])
def test_a_wav_whose_size_is_too_small(speech: Floats, declared_sec: float) -> None:
    data = bytearray(wav(speech))
    data[40:44] = struct.pack("<I", round(declared_sec * 32000))
    found, warnings = heard(bytes(data))
    np.testing.assert_allclose(found, speech, atol=1e-4)
    assert warnings == ()


@pytest.mark.parametrize(
    "tail",
    [
        b"LIST" + struct.pack("<I", 3000) + b"INFOISFT" + bytes(range(256)) * 12,
        b"LIST" + struct.pack("<I", 3080) + b"INFOISFT" + bytes(range(256)) * 12,
        b"id3 " + struct.pack("<I", 1000) + b"ID3" + b"\x55" * 997,
        b"ID3\x03\x00\x00\x00\x00\x07\x68" + b"\x55" * 1000,
        b"TAG" + b"talk".ljust(125, b"\0"),
        b"cue " + struct.pack("<I", 28) + bytes(28) + b"bext" + struct.pack("<I", 602) + b"x" * 602,
    ],
    ids=["LIST, too short", "LIST", "id3-chunk", "id3-tag", "id3v1", "two chunks"],
)
def test_chunks_and_tags_behind_the_samples_are_no_sound(speech: Floats, tail: bytes) -> None:
    found, warnings = heard(wav(speech) + tail)
    assert len(found) == len(speech)
    assert warnings == ()


def test_an_odd_number_of_bytes_before_a_chunk() -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 16001).astype(np.float32)
    data = wav(samples, subtype="PCM_U8")
    chunk = b"LIST" + struct.pack("<I", 400) + b"\x7f" * 400
    body = data[: 44 + 16001]
    for padding in (b"", b"\0"):
        assert len(heard(body + padding + chunk)[0]) == 16001


def test_a_size_that_counts_the_padding_which_is_not_there(speech: Floats) -> None:
    samples = speech[:16001]
    data = wav(samples, subtype="PCM_U8")[: 44 + 16001]
    counted = data[:40] + struct.pack("<I", 16002) + data[44:]
    found, warnings = heard(counted)
    assert len(found) == 16001
    assert warnings == ()
    (warning,) = heard(data[:40] + struct.pack("<I", 16004) + data[44:])[1]
    assert "damaged or cut short" in warning


_LYRICS = b"LYRICSBEGININD0000200LYR00030[00:01]one, two, three and so on"
_ID3V1 = b"TAG" + b"talk".ljust(125, b"\0")


@pytest.mark.parametrize("id3v1", [b"", _ID3V1], ids=["alone", "before ID3v1"])
@pytest.mark.parametrize(
    "tag", [_LYRICS + b"%06dLYRICS200" % len(_LYRICS), b"LYRICSBEGINone\r\ntwoLYRICSEND"], ids=["2", "1"]
)
def test_lyrics_behind_mp3_are_no_damage(speech: Floats, tag: bytes, id3v1: bytes) -> None:
    data = by_libsndfile(speech, "MP3", "MPEG_LAYER_III")
    found, warnings = heard(data + tag + id3v1)
    assert warnings == ()
    np.testing.assert_array_equal(found, heard(data)[0])


@pytest.mark.parametrize("share", [0.4, 0.8])
@pytest.mark.parametrize(("format", "subtype"), [one for one in LIBSNDFILE if one[0] != "OGG"])
def test_a_cut_file_says_how_much_is_missing(speech: Floats, format: str, subtype: str, share: float) -> None:
    data = by_libsndfile(speech, format, subtype)
    found, warnings = heard(data[: round(len(data) * share)])
    missing_sec = (len(speech) - len(found)) / 16000
    assert missing_sec > 1
    (warning,) = warnings
    assert "damaged or cut short" in warning
    assert float(warning.split("about ")[1].split(" s")[0]) == pytest.approx(missing_sec, abs=0.8)


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp3", "libmp3lame"), ("flac", "flac"), ("matroska", "aac"), ("webm", "libopus"), ("asf", "wmav2"),
        ("ogg", "libopus"), ("avi", "libmp3lame"),
    ],
)  # fmt: skip
def test_a_cut_file_of_ffmpeg_says_so(speech: Floats, container: str, codec: str) -> None:
    data = media(container, codec, speech)
    assert heard(data)[1] == ()
    found, warnings = heard(data[: round(len(data) * 0.6)])
    assert 3 < len(found) / 16000 < 7
    assert ["damaged or cut short" in warning for warning in warnings] == [True]


@pytest.mark.parametrize(
    ("container", "codec"), [("mp2", "mp2"), ("ac3", "ac3"), ("eac3", "eac3"), ("mpegts", "mp2"), ("mpegts", "ac3")]
)
def test_a_cut_frame_says_so_where_nothing_declares_a_length(speech: Floats, container: str, codec: str) -> None:
    data = media(container, codec, speech)
    assert heard(data)[1] == ()
    cuts = [data[: round(len(data) * share)] for share in (0.31, 0.53, 0.77, 0.9)]
    assert sum("damaged or cut short" in " ".join(heard(cut)[1]) for cut in cuts) >= 3


@pytest.mark.parametrize("share", [0.31, 0.53, 0.9])
def test_a_cut_live_webm_says_so(speech: Floats, share: float) -> None:
    data = media("webm", "libopus", speech, options={"live": "1"})
    assert heard(data)[1] == ()
    found, (warning,) = heard(data[: round(len(data) * share)])
    assert "the last page, block or packet is not whole" in warning
    near(found[: len(found) - 3200], speech[: len(found) - 3200])


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("adts", "aac", 16000), ("adts", "aac", 22050), ("mpegts", "aac", 16000), ("flv", "aac", 44100),
        ("mp2", "mp2", 16000), ("mpegts", "mp2", 16000), ("mpegts", "mp2", 48000), ("ac3", "ac3", 48000),
        ("avi", "libmp3lame", 16000), ("mp3", "libmp3lame", 16000), ("matroska", "aac", 16000),
        ("matroska", "libmp3lame", 16000),
    ],
)  # fmt: skip
def test_the_encoders_delay_is_taken_off(speech: Floats, container: str, codec: str, rate: int) -> None:
    options = {"write_xing": "0"} if container == "mp3" else None
    near(heard(media(container, codec, speech, rate=rate, options=options))[0], speech, within_ms=3)


def test_the_encoders_delay_of_fragments_is_taken_off(speech: Floats) -> None:
    data = media("mp4", "aac", speech, rate=16000, options={"movflags": "frag_keyframe+empty_moov"})
    near(heard(data)[0], speech, within_ms=3)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("avi", "libmp3lame"), ("avi", "aac"), ("mpegts", "aac"), ("mp4", "aac"), ("matroska", "aac")],
)
def test_sound_begins_with_its_picture(speech: Floats, container: str, codec: str) -> None:
    """A picture turns white with the first sound. All but Matroska do not tell the encoder's delay."""
    speech = np.concatenate([np.zeros(16000, np.float32), speech[int(np.argmax(np.abs(speech) > 0.01)) :]])
    options = {"movflags": "frag_keyframe+empty_moov"} if container == "mp4" else None
    data = media(container, codec, speech, rate=16000, with_video=True, white_from_sec=1.0, options=options)
    with av.open(io.BytesIO(data), "r") as opened:
        seen = next(frame.time for frame in opened.decode(video=0) if frame.to_ndarray()[0, 0] > 128)
        assert seen is not None
        seen -= (opened.start_time or 0) / 1e6
    found, _ = heard(data)
    heard_sec = 1.0 + shifts_ms(found, speech, at=(0.0,))[0] / 1000
    # FFmpeg's AVI has times in whole pictures, of 100 ms.
    assert heard_sec == pytest.approx(seen, abs=0.06 if container == "avi" else 0.003)


def test_fragments_of_one_frame_each_are_heard_whole(speech: Floats) -> None:
    """Their rounded times are those of the one before, in every fifth."""
    options = {"movflags": "frag_every_frame+empty_moov"}
    found, warnings = heard(media("mp4", "aac", speech, with_video=True, options=options))
    near(found, speech, within_ms=25)
    assert warnings == ()


@pytest.mark.parametrize("kinds", [("RF64", "RF64"), ("RF64", "WAV"), ("WAV", "RF64"), ("RF64", "RF64", "RF64")])
def test_long_wavs_joined(speech: Floats, kinds: Sequence[str]) -> None:
    found, warnings = heard(b"".join(wav(speech, format=kind) for kind in kinds))
    assert np.array_equal(found, np.tile(heard(wav(speech))[0], len(kinds)))
    assert warnings == ()


@pytest.mark.parametrize("declared", [0, 1000, (1 << 63) - 1, (1 << 64) - 1])
def test_a_long_wav_whose_size_is_wrong(speech: Floats, declared: int) -> None:
    data = bytearray(wav(speech, format="RF64"))
    at = data.index(b"ds64") + 8
    data[at : at + 16] = declared.to_bytes(8, "little") * 2
    data[data.index(b"data") + 4 : data.index(b"data") + 8] = b"\xff" * 4
    found, warnings = heard(bytes(data))
    assert np.array_equal(found, heard(wav(speech))[0])
    assert warnings == ()


def test_a_cut_mp4_with_its_index_in_front(speech: Floats) -> None:
    data = media("mp4", "aac", speech, options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})
    assert heard(data)[1] == ()
    data = _faststart(media("mp4", "aac", speech))
    assert heard(data)[1] == ()
    found, warnings = heard(data[: round(len(data) * 0.6)])
    assert 3 < len(found) / 16000 < 7
    assert "damaged or cut short" in warnings[0]


def _faststart(data: bytes) -> bytes:
    """The MP4 file with `moov` before `mdat`, as for the web."""
    boxes, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        boxes.append((data[at + 4 : at + 8], data[at : at + size]))
        at += size
    by_name = dict(boxes)
    moov = bytearray(by_name[b"moov"])
    table = moov.find(b"stco")
    for number in range(int.from_bytes(moov[table + 8 : table + 12], "big")):
        place = table + 12 + 4 * number
        moved = int.from_bytes(moov[place : place + 4], "big") + len(moov)
        moov[place : place + 4] = moved.to_bytes(4, "big")
    rest = b"".join(box for name, box in boxes if name not in (b"ftyp", b"moov"))
    return by_name[b"ftyp"] + bytes(moov) + rest


def test_damage_in_the_middle_of_a_flac_loses_no_more_than_its_place(speech: Floats) -> None:
    data = bytearray(wav(np.tile(speech, 2), format="FLAC"))
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    found, warnings = heard(bytes(data))
    near(found, np.tile(speech, 2), within_ms=1)
    assert len(warnings) == 1


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_very_many_files_joined(speech: Floats, format: str) -> None:
    one = wav(speech[8000:9000], format=format)
    alone, _ = heard(one)
    found, warnings = heard(one * 1100)
    assert len(found) == pytest.approx(len(alone) * 1100, rel=0.01)
    assert warnings == ()


def test_too_many_parts_that_are_no_audio(speech: Floats) -> None:
    bad = b"fLaC\x00\x00\x00\x22" + bytes(100)
    found, warnings = heard(wav(speech, format="FLAC") + bad * 200)
    near(found, speech, within_ms=1)
    assert "was not tried" in warnings[-1]
    with pytest.raises(AudioError, match="cannot be decoded"):
        heard(bad * 200)


def test_a_part_that_is_no_audio_is_a_warning(speech: Floats) -> None:
    one = wav(speech, format="FLAC")
    found, warnings = heard(one + b"fLaC\x00\x00\x00\x22" + bytes(500) + one)
    near(found, np.concatenate([speech, speech]), within_ms=1)
    assert "cannot be decoded" in warnings[0]


# The container's time.


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "aac"), ("mov", "aac"), ("matroska", "aac"), ("matroska", "libopus"), ("mpegts", "aac")],
)  # fmt: skip
def test_a_track_that_begins_late(speech: Floats, container: str, codec: str) -> None:
    found, warnings = heard(media(container, codec, Track(speech, offset_sec=5.0), with_video=True))
    near(found, np.concatenate([silence(5), speech]))
    assert warnings == ()


def test_a_late_tracks_times_have_the_encoders_delay(speech: Floats) -> None:
    """Where a track begins at zero, the delay makes it late; behind silence there is room for it."""
    found, _ = heard(media("mp4", "aac", Track(speech, offset_sec=5.0), rate=16000))
    near(found, np.concatenate([silence(5), speech]), within_ms=3)


def test_blocks_of_an_avi_that_are_large_are_no_gaps(speech: Floats) -> None:
    found, warnings = heard(media("avi", "aac", np.tile(speech, 4), rate=16000))
    near(found, np.tile(speech, 4), within_ms=70)
    assert warnings == ()


def test_time_stamps_that_do_not_begin_at_zero_are_no_silence(speech: Floats) -> None:
    """A recorder's later piece, or a stream that was joined late."""
    for container, codec in (("webm", "libopus"), ("mpegts", "aac"), ("matroska", "aac")):
        near(heard(media(container, codec, Track(speech, offset_sec=30.0)))[0], speech)


@pytest.mark.parametrize(
    ("container", "codec"), [("webm", "libopus"), ("matroska", "aac"), ("mp4", "aac"), ("mpegts", "aac")]
)
def test_a_pause_of_the_recorder_is_silence(speech: Floats, container: str, codec: str) -> None:
    paused = Track(speech, gap_at_sec=3.0, gap_sec=7.0)
    found, warnings = heard(media(container, codec, paused))
    near(found, np.concatenate([speech[: 3 * 16000], silence(7), speech[3 * 16000 :]]), within_ms=45)
    assert warnings == ()


def test_a_long_pause_is_skipped_and_times_are_kept(speech: Floats) -> None:
    data = media("webm", "libopus", Track(speech, gap_at_sec=3.0, gap_sec=7200.0))
    blocks = list(Recording(data, max_duration_sec=20))
    (skip,) = [block for block in blocks if isinstance(block, Skip)]
    assert skip.samples / 16000 == pytest.approx(7200, abs=0.05)
    assert sum(len(block) for block in blocks if not isinstance(block, Skip)) == pytest.approx(len(speech), abs=1600)


def test_gaps_have_a_limit_all_together() -> None:
    """A file of 67 kB was heard as 9e13 s, and its peaks were as many zeros."""
    timeline, gaps_sec, start_sec = Timeline(0.0), 0.0, 0.0
    for hours in (0, 64, 30, 7, 2**50, 0):
        start_sec += hours * 3600 + 1
        gaps_sec += timeline.gap_before(start_sec - 1, 1.0)
        assert timeline.is_beyond == (hours in (7, 2**50) or start_sec > 2**50)
    assert gaps_sec == 94 * 3600


@pytest.mark.parametrize("jitter_sec", [0.01, 0.04, 0.3])
def test_jitter_of_time_stamps_inserts_nothing(jitter_sec: float) -> None:
    random = np.random.default_rng(0)
    timeline, gaps = Timeline(0.0), 0.0
    for number in range(2000):
        gaps += timeline.gap_before(number * 0.02 + random.uniform(-jitter_sec, jitter_sec) / 2, 0.02)
    assert gaps <= 0.5  # once at most, until the latest time stamp is the measure


def test_time_stamps_by_a_wrong_rate_insert_next_to_nothing() -> None:
    timeline = Timeline(0.0)
    assert sum(timeline.gap_before(number * 0.04, 0.02) for number in range(5000)) < 0.5


def test_lost_packets_are_filled_up() -> None:
    timeline, frames = Timeline(0.0), 0
    filled = 0.0
    for number in range(3000):
        if number % 20 not in (7, 8, 9, 10):
            frames += 1
            filled += timeline.gap_before(number * 0.02, 0.02)
    assert filled == pytest.approx(60 - frames * 0.02, abs=0.1)


def test_overlaps_are_heard_whole() -> None:
    timeline = Timeline(0.0)
    starts = [*np.arange(0, 5, 0.02), *np.arange(4.5, 9, 0.02), *np.arange(0, 5, 0.02), *np.arange(7, 9, 0.02)]
    gaps = [timeline.gap_before(float(start), 0.02) for start in starts]
    assert sum(gaps) == pytest.approx(1.5, abs=0.06)  # what lies between 5 and 7, less the overlap of 0.5


# Channels.


def noise(like: Floats, level: float, seed: int = 0) -> Floats:
    return (level * np.random.default_rng(seed).standard_normal(len(like))).astype(np.float32)


@pytest.mark.parametrize("through", ["wav", "m4a", "opus"])
@pytest.mark.parametrize(
    ("signs", "expected"),
    [((1, 1), 1.0), ((1, -1), 1.0), ((1, -0.5), 0.75), ((1, -1, 1, -1), 1.0), ((0, 0, 1, 0, 0, 0), 0.5), ((0, 1), 0.5)],
)
def test_a_mix_keeps_the_speech(speech: Floats, signs: Sequence[float], expected: float, through: str) -> None:
    channels = [(speech * sign).astype(np.float32) for sign in signs]
    if through == "wav":
        data = wav(*channels)
    elif through == "m4a":
        data = media("ipod", "aac", np.stack(channels, axis=1))
    else:
        data = media("ogg", "libopus", np.stack(channels, axis=1))
    found, warnings = heard(data)
    near(found, speech)
    if len(signs) < 6 or through == "wav":  # lossy codecs make a subwoofer of the fourth channel of six
        assert found.std() / speech.std() == pytest.approx(expected, rel=0.1)
    assert len(warnings) == sum(sign < 0 for sign in signs)
    assert all("inverted" in warning for warning in warnings)


@pytest.mark.parametrize("noisy", [0, 1])
@pytest.mark.parametrize("level", [0.01, 0.05, 0.2])
def test_a_channel_of_noise_is_left_out(speech: Floats, noisy: int, level: float) -> None:
    channels = [speech, speech]
    channels[noisy] = noise(speech, level)
    found, warnings = heard(wav(*channels))
    np.testing.assert_allclose(found, speech, atol=1e-3)
    assert warnings == (f"channel {noisy + 1} of 2 holds steady noise and was left out",)


def test_inverted_channels_with_noise_of_their_own(speech: Floats) -> None:
    found, warnings = heard(wav(speech + noise(speech, 0.01, 1), -speech + noise(speech, 0.01, 2)))
    assert np.corrcoef(found, speech)[0, 1] > 0.97
    assert warnings == ("channel 2 of 2 is inverted and was turned before the channels were mixed",)


def test_two_people_are_both_heard(recordings: list[Clip]) -> None:
    one, other = recordings[3].waveform, recordings[5].waveform
    length = min(len(one), len(other))
    found, warnings = heard(wav(one, other))
    np.testing.assert_allclose(found, (one[:length] + other[:length]) / 2, atol=1e-4)
    assert warnings == ()


def test_a_change_within_a_recording_does_not_click(speech: Floats) -> None:
    """The second channel is inverted in the second half."""
    found, _ = heard(wav(np.concatenate([speech, speech]), np.concatenate([speech, -speech])))
    expected = np.concatenate([speech, speech])
    assert found[: len(speech) - 32000].std() == pytest.approx(speech[: len(speech) - 32000].std(), rel=0.02)
    assert found[-len(speech) + 32000 :].std() == pytest.approx(speech[32000:].std(), rel=0.02)
    assert np.abs(np.diff(found)).max() <= 1.1 * np.abs(np.diff(expected)).max()


def test_one_channel_alone(recordings: list[Clip]) -> None:
    one, other = recordings[3].waveform, recordings[5].waveform
    length = min(len(one), len(other))
    data = wav(one, other)
    for choice, expected in (("left", one), ("1", one), ("right", other), ("2", other)):
        np.testing.assert_allclose(heard(data, Selection(choice))[0], expected[:length], atol=1e-4)
    with pytest.raises(AudioError, match="has 2 channels, expected channel 3"):
        heard(data, Selection("3"))
    with pytest.raises(AudioError, match="has 1 channel, expected channel 2"):
        heard(wav(one), Selection("right"))
    assert selected(data, Selection("each")) == (Selection("1"), Selection("2"))
    assert [single for single, _ in opened_recordings(data, Selection("each"))] == [Selection("1"), Selection("2")]


@pytest.mark.parametrize("channels", ["", "0", "-1", "both", "1.5", "²", "10000"])
def test_channels_that_are_none(channels: str) -> None:
    with pytest.raises(OptionsError, match="Expected channels to be mix, left, right, each or a number"):
        Selection(channels)


# Tracks.


def test_the_first_track_with_sound(speech: Floats) -> None:
    for container in ("mp4", "matroska"):
        found, warnings = heard(media(container, "aac", np.zeros_like(speech), speech, with_video=True))
        near(found, speech)
        assert warnings == (
            "the file has 2 audio tracks, of which number 2 was transcribed (hint: moulin's option --track NUMBER, or "
            "its REST field track, chooses another one)",
        )


def test_the_default_track_comes_first(recordings: list[Clip]) -> None:
    one, other = Track(recordings[3].waveform, is_default=False), Track(recordings[5].waveform, is_default=True)
    found, _ = heard(media("matroska", "aac", one, other))
    near(found, other.samples)


def test_a_comment_comes_last(recordings: list[Clip]) -> None:
    comment, speech = Track(recordings[3].waveform, is_comment=True), Track(recordings[5].waveform, is_default=False)
    found, _ = heard(media("matroska", "aac", comment, speech))
    near(found, speech.samples)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_looking_at_tracks_loses_nothing(speech: Floats, container: str) -> None:
    """A file that is larger than a decoder's buffer, which is read twice."""
    long = np.tile(speech, 12)
    other = Track(np.zeros_like(long), is_default=False)
    near(heard(media(container, "aac", Track(long, is_default=True), other))[0], long, within_ms=45)


def test_a_track_that_is_silent_for_long(speech: Floats) -> None:
    late = np.concatenate([silence(70), speech])
    for tracks in ((np.zeros_like(late), late), (late, np.zeros_like(late))):
        near(heard(media("mp4", "aac", *tracks))[0], late)


def test_a_track_that_is_shorter_than_another_is_not_cut(speech: Floats) -> None:
    data = media("matroska", "libopus", Track(speech, offset_sec=30.0), np.zeros(60 * 16000, np.float32))
    found, warnings = heard(data, Selection(track="1"))
    near(found, np.concatenate([silence(30), speech]))
    assert warnings == ()


def test_a_track_by_number_and_all(recordings: list[Clip]) -> None:
    one, other = recordings[3].waveform, recordings[5].waveform
    data = media("mp4", "aac", one, np.stack([other, other], axis=1))
    near(heard(data, Selection(track="1"))[0], one)
    near(heard(data, Selection(track="2"))[0], other)
    assert heard(data, Selection(track="2"))[1] == ()
    with pytest.raises(AudioError, match="has 2 audio tracks, expected track 3"):
        heard(data, Selection(track="3"))
    assert selected(data, Selection(track="all")) == (Selection(track="1"), Selection(track="2"))
    each = selected(data, Selection("each", "all"))
    assert each == (Selection("1", "1"), Selection("1", "2"), Selection("2", "2"))


# As an object.


def test_options_and_blocks_go_through_a_pipe() -> None:
    selection = Selection("each", "all")
    assert pickle.loads(pickle.dumps(selection)) == selection
    assert pickle.loads(pickle.dumps(Skip(5))) == Skip(5)


def test_memory_is_flat(speech: Floats) -> None:
    long = wav(np.tile(speech, 20), np.tile(-speech, 20))
    tracemalloc.start()
    for _ in Recording(long):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - len(long) < 8_000_000


def test_too_long(speech: Floats) -> None:
    with pytest.raises(AudioTooLong):
        heard(wav(speech), max_duration_sec=5)


def test_very_many_chunks_of_samples_are_hidden_by_two_others() -> None:
    chunks = (b"data" + struct.pack("<I", 2) + b"\1\0") * 20_000
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    file = io.BytesIO(b"RIFF" + struct.pack("<I", 4 + len(form) + len(chunks)) + b"WAVE" + form + chunks)
    parts = parts_of(file)
    assert len(parts) == 1000
    assert max(len(part.changes) for part in parts) == 1
    assert parts[-1].missing_bytes > 0


def test_a_voc_that_is_cut_says_so(speech: Floats) -> None:
    whole = voc(speech)
    assert heard(whole)[1] == ()
    (warning,) = heard(whole[:-64_000])[1]
    assert "missing" in warning
