"""Audio from a pipe while it is written: what is given before the writer goes on, and how it ends."""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import soundfile

from moulin.arrays import Floats
from moulin.audio.live_input import LiveInput
from moulin.audio.pcm import RawFormat
from moulin.audio.selection import MIX, Selection
from moulin.errors import AudioError
from tests.conftest import Recording

from .media import Track, media, shifts_ms

RAW = RawFormat("s16le", 16_000, 1)
FMT = struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
WAV = b"RIFF\xff\xff\xff\xffWAVEfmt " + FMT + b"data\xff\xff\xff\xff"


def pcm(samples: Floats) -> bytes:
    data: bytes = (samples * 32767).astype("<i2").tobytes()
    return data


@contextmanager
def pipe(raw: RawFormat | None = None, selection: Selection = MIX) -> Iterator[tuple[LiveInput, int]]:
    """An input, and where to write it. Tests that close the latter replace it."""
    reading, writing = os.pipe()
    spare = os.dup(writing)
    os.close(writing)
    try:
        with closing(LiveInput(reading, "standard input", raw, selection)) as live:
            yield live, spare
    finally:
        os.close(reading)


def written(data: bytes, raw: RawFormat | None = None, every: int = 1 << 16) -> Floats:
    """What is heard of `data` in pieces of `every` bytes."""
    with pipe(raw) as (live, to):

        def write() -> None:
            with os.fdopen(to, "wb", buffering=0) as file:
                for begin in range(0, len(data), every):
                    file.write(data[begin : begin + every])

        writer = threading.Thread(target=write)
        writer.start()
        heard: Floats = np.concatenate([np.zeros(0, np.float32), *live])
        writer.join()
        assert live.fault is None
        return heard


def file_of(samples: Floats, format: str, subtype: str | None = None, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize("every", [1, 3, 77, 4099])
def test_every_odd_split(recordings: list[Recording], every: int) -> None:
    samples = recordings[0].waveform[8000:12_000]
    expected = np.frombuffer(pcm(samples), "<i2") / np.float32(32768)
    assert np.array_equal(written(WAV + pcm(samples), every=every), expected)
    assert np.array_equal(written(pcm(samples), RAW, every=every), expected)


def test_it_is_given_before_more_is_written(recordings: list[Recording]) -> None:
    """WAV and raw: sample for sample, without waiting for the next."""
    samples = recordings[0].waveform
    for raw, begin in ((None, WAV), (RAW, b"")):
        with pipe(raw) as (live, to):
            blocks, count = iter(live), 0
            for piece in np.split(samples[:16_000], 10):
                os.write(to, begin + pcm(piece))
                begin = b""
                count += len(piece)
                heard = 0
                while heard < len(piece):
                    heard += len(next(blocks))
                assert heard == len(piece)
            os.close(to)


@pytest.mark.needs("av")
@pytest.mark.parametrize(
    ("format", "subtype", "behind_sec"),
    [("MP3", None, 1), ("OGG", "VORBIS", 1.5), ("OGG", "OPUS", 1.5), ("FLAC", None, 4)],
)
def test_containers_are_decoded_as_they_come(
    recordings: list[Recording], format: str, subtype: str | None, behind_sec: float
) -> None:
    """Of a source that has sent half its audio and waits, all but a little is heard. FFmpeg looks ten frames ahead in
    FLAC, and Ogg has pages of up to a second."""
    samples = np.concatenate([recording.waveform for recording in recordings[:4]])
    data = file_of(samples, format, subtype)
    with pipe() as (live, to):
        os.set_blocking(to, True)
        writer = threading.Thread(target=os.write, args=(to, data[: len(data) // 2]), daemon=True)
        writer.start()
        blocks, count = iter(live), 0
        while count < len(samples) * 0.48 - 16_000 * behind_sec:
            count += len(next(blocks))
        writer.join()
        os.close(to)
        list(blocks)
    whole = written(data)
    assert len(whole) == pytest.approx(len(samples), abs=3000)


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (48_000, 6)])
def test_rates_and_channels(rate: int, channels: int) -> None:
    tone = np.sin(np.arange(rate) * 2 * np.pi * 440 / rate).astype(np.float32) / 2
    data = file_of(np.stack([tone] * channels, axis=1), "WAV", "PCM_24", rate)
    heard = written(data, every=1000)
    expected = np.sin(np.arange(16_000) * 2 * np.pi * 440 / 16_000) / 2
    assert abs(len(heard) - 16_000) <= 2
    assert np.abs(heard[200:-200] - expected[200 : len(heard) - 200]).max() < 0.01


def test_channels_that_cancel_each_other(recordings: list[Recording]) -> None:
    samples = recordings[0].waveform[8000:16_000]
    for other in (-samples, np.zeros_like(samples)):
        heard = written(file_of(np.stack([samples, other], axis=1), "WAV"))
        assert float(heard @ heard) > 0.2 * float(samples @ samples)


def heard_of(
    data: bytes, raw: RawFormat | None = None, selection: Selection = MIX
) -> tuple[Floats, str | None, tuple[str, ...]]:
    """What is heard of `data`, why it ended early, and the warnings."""
    with pipe(raw, selection) as (live, to):

        def write() -> None:
            with os.fdopen(to, "wb", buffering=0) as file, suppress(BrokenPipeError):
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]

        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        found: Floats = np.concatenate([np.zeros(0, np.float32), *live])
        writer.join()
        return found, live.fault, live.warnings


@pytest.mark.parametrize(("container", "codec"), [("mp3", "libmp3lame"), ("adts", "aac"), ("matroska", "aac")])
def test_damage_does_not_end_it(recordings: list[Recording], container: str, codec: str) -> None:
    speech = recordings[0].waveform
    data = bytearray(media(container, codec, speech))
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    found, fault, warnings = heard_of(bytes(data))
    assert fault is None
    assert "damaged" in " ".join(warnings) or container == "matroska"
    assert len(found) > len(speech) - 12_000
    assert abs(np.corrcoef(found[16000:32000], speech[16000:32000])[0, 1]) > 0.9


def test_the_rate_of_an_mp3_changes(recordings: list[Recording]) -> None:
    one, other = recordings[0].waveform, recordings[1].waveform
    stereo = np.stack([other, other], axis=1)
    data = media("mp3", "libmp3lame", one, rate=16000) + media("mp3", "libmp3lame", stereo, rate=44100)
    found, fault, _ = heard_of(data)
    assert fault is None
    assert len(found) == pytest.approx(len(one) + len(other), abs=3200)


@pytest.mark.parametrize("container", ["matroska", "mpegts"])
def test_time_stamps_of_a_pipe(recordings: list[Recording], container: str) -> None:
    speech = recordings[0].waveform
    late = Track(speech, offset_sec=2.0, gap_at_sec=3.0, gap_sec=1.5)
    found, _, _ = heard_of(media(container, "aac", late, with_video=True))
    expected = np.concatenate([np.zeros(32000), speech[:48000], np.zeros(24000), speech[48000:]]).astype(np.float32)
    assert max(map(abs, shifts_ms(found, expected))) < 45


def test_the_default_track_is_heard(recordings: list[Recording]) -> None:
    one, other = Track(recordings[3].waveform, is_default=False), Track(recordings[5].waveform, is_default=True)
    found, _, warnings = heard_of(media("matroska", "libopus", one, other))
    assert max(map(abs, shifts_ms(found, other.samples))) < 30
    (warning,) = warnings
    assert warning.startswith("there are 2 audio tracks, of which number 2 is heard")
    assert "--track NUMBER" in warning


def test_a_track_and_a_channel_that_are_chosen(recordings: list[Recording]) -> None:
    one, other = recordings[3].waveform[:64_000], recordings[5].waveform[:64_000]
    tracks = media("matroska", "libopus", one, np.stack([other, one], axis=1))
    found, _, warnings = heard_of(tracks, selection=Selection("left", "2"))
    assert max(map(abs, shifts_ms(found, other))) < 30
    assert warnings == ()
    stereo = file_of(np.stack([one, other], axis=1), "WAV")
    found, _, _ = heard_of(stereo, selection=Selection("right"))
    np.testing.assert_allclose(found, other, atol=1e-4)
    samples = np.frombuffer(stereo[44:], "<i2").tobytes()
    found, _, _ = heard_of(samples, RawFormat("s16le", 16_000, 2), Selection("2"))
    np.testing.assert_allclose(found, other, atol=1e-4)


@pytest.mark.parametrize(
    ("selection", "message"),
    [(Selection("3"), "has 2 channels, expected channel 3"), (Selection(track="2"), "is one track, expected track 2")],
)
def test_a_choice_that_is_not_there(selection: Selection, message: str) -> None:
    samples = np.zeros((16_000, 2), np.float32)
    for data, raw in ((file_of(samples, "WAV"), None), (bytes(64_000), RawFormat("s16le", 16_000, 2))):
        with pytest.raises(AudioError, match=message):
            heard_of(data, raw, selection)


def test_a_track_that_a_container_does_not_have(recordings: list[Recording]) -> None:
    data = media("matroska", "libopus", recordings[0].waveform[:32_000])
    with pytest.raises(AudioError, match="has 1 audio track, expected track 2"):
        heard_of(data, selection=Selection(track="2"))


@pytest.mark.parametrize("seconds", [1, 5])
def test_samples_of_another_format_are_doubted(recordings: list[Recording], seconds: int) -> None:
    floats = recordings[0].waveform[8000 : 8000 + seconds * 16_000].tobytes()
    found, fault, (warning,) = heard_of(floats, RAW)
    assert len(found) == seconds * 32_000
    assert fault is None
    assert "seem to be f32le, not s16le" in warning


def test_stopping_ends_it() -> None:
    with pipe(RAW) as (live, to):
        os.write(to, bytes(3200))
        blocks = iter(live)
        assert len(next(blocks)) == 1600
        threading.Timer(0.05, live.stop).start()
        assert sum(map(len, blocks)) == 0
        os.close(to)


@pytest.mark.parametrize("raw", [None, RAW])
def test_stopping_before_anything_comes(raw: RawFormat | None) -> None:
    with pipe(raw) as (live, to):
        live.stop()
        assert list(live) == []
        os.close(to)


def test_an_odd_byte_at_the_end_is_left_out() -> None:
    assert len(written(bytes(201), RAW)) == 100


@pytest.mark.needs("av")
def test_a_writer_that_breaks_off(recordings: list[Recording]) -> None:
    data = file_of(recordings[0].waveform, "MP3")
    heard = written(data[: len(data) // 2 + 77])
    assert len(heard) > 0.4 * len(recordings[0].waveform)


@pytest.mark.needs("av")
def test_a_file_that_can_only_be_read_whole(recordings: list[Recording]) -> None:
    """MP4 with its index behind the audio."""
    import av

    file = io.BytesIO()
    samples = recordings[0].waveform[:32_000]
    with av.open(file, "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=16_000)
        frame: Any = av.AudioFrame.from_ndarray((samples[None] * 32767).astype(np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    assert len(written(file.getvalue())) == pytest.approx(32_000, abs=3000)


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (b"", r"standard input is empty \(0 bytes\)", None),
        (b"hello, this is not audio\n" * 50, "neither WAV nor another container", "--raw s16le:16000"),
        (WAV[:20], "ended within its WAV header", None),
        (WAV[:22] + b"\0\0" + WAV[24:], "0 channels", None),
        (pcm(np.sin(np.arange(9000)).astype(np.float32) / 3), "neither WAV nor another", "--raw"),
    ],
)
def test_what_cannot_be_heard(data: bytes, message: str, hint: str | None) -> None:
    with pytest.raises(AudioError, match=message) as raised:
        written(data)
    assert hint is None or hint in (raised.value.hint or "")


def test_floats_that_are_not_numbers() -> None:
    data = np.array([0.1, np.nan], "<f4").tobytes()
    with pytest.raises(AudioError, match="nan at sample 1"):
        written(data, RawFormat("f32le", 16_000, 1))
