"""PCM in any pieces is the same 16 kHz waveform as PCM at once."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from moulin.audio.decode import resample
from moulin.audio.pcm import PcmEncoding
from moulin.audio.waveform import SAMPLE_RATE
from moulin.errors import AudioError
from moulin.gateway.live_audio import ContainerSent, LiveAudio, Samples

TONE = (0.4 * np.sin(np.arange(3 * 24_000) * 2 * np.pi * 440 / 24_000)).astype(np.float32)


def _all(audio: LiveAudio, data: bytes, step: int) -> list[Samples]:
    pieces = []
    for begin in range(0, len(data), step):
        pieces += audio.accept(data[begin : begin + step])
    return [*pieces, audio.flush()]


@pytest.mark.parametrize("step", [1_001, 960, 7, 10**6])
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 44_100, 48_000])
def test_any_pieces_of_any_rate(step: int, rate: int) -> None:
    pcm = (TONE[:24_000] * 32767).astype("<i2")
    pieces = _all(LiveAudio("s16le", rate), pcm.tobytes(), step)
    whole = resample(pcm.astype(np.float32) / 32768, rate, SAMPLE_RATE)
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=2e-4)


@pytest.mark.parametrize(("encoding", "size"), [("s16le", 2), ("f32le", 4), ("mulaw", 1), ("alaw", 1)])
def test_received_counts_whole_samples(encoding: PcmEncoding, size: int) -> None:
    audio = LiveAudio(encoding, 8_000)
    audio.accept(bytes(size * 800 + size - 1))
    assert audio.received_sec == 0.1


def test_pieces_are_worth_a_request_and_no_longer_than_five_seconds() -> None:
    audio = LiveAudio("f32le")
    second = np.zeros(SAMPLE_RATE, np.float32).tobytes()
    assert audio.accept(second[: len(second) // 20]) == []
    assert [len(piece) for piece in audio.accept(second[: len(second) // 20])] == [1_600]
    assert [len(piece) for piece in audio.accept(second * 12)] == [80_000, 80_000, 32_000]
    assert len(audio.flush()) == 0


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_empty_until_there_is_something(rate: int) -> None:
    audio = LiveAudio("s16le", rate)
    was_empty = [audio.is_empty]
    assert len(audio.flush()) == 0
    for _ in range(2):
        audio.accept(b"\x00")
        was_empty.append(audio.is_empty)
    assert len(audio.flush()) == 1
    assert [*was_empty, audio.is_empty] == [True, True, False, True]


def test_bad_samples_are_left_out() -> None:
    audio = LiveAudio("f32le")
    with pytest.raises(AudioError, match="nan at sample 1"):
        audio.accept(np.array([0.5, np.nan], "<f4").tobytes())
    audio.accept(np.array([0.25], "<f4").tobytes())
    assert audio.flush().tolist() == [0.25]
    assert audio.received_sec == 1 / SAMPLE_RATE


def test_discarding_leaves_nothing_behind() -> None:
    audio = LiveAudio("s16le", 24_000)
    audio.accept(b"\x00\x40" * 500 + b"\x40")
    audio.discard()
    audio.accept(bytes(2_400))
    assert np.abs(audio.flush()).max() == 0


@pytest.mark.parametrize("rate", [0, 7_999, 192_001])
def test_no_rate_of_speech(rate: int) -> None:
    with pytest.raises(AudioError, match=f"8000 to 192000 Hz, got {rate}"):
        LiveAudio("s16le", rate)


def test_no_encoding() -> None:
    with pytest.raises(AudioError, match="'mp3'"):
        LiveAudio("mp3")  # type: ignore[arg-type]


def _file(format: str, subtype: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000, format=format, subtype=subtype)
    return file.getvalue()


FILES = {
    "a WAV file": ("WAV", "PCM_16"),
    "an Ogg file": ("OGG", "OPUS"),
    "an MP3 file": ("MP3", "MPEG_LAYER_III"),
    "a FLAC file": ("FLAC", "PCM_16"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("every", [1, 7, 3200, 1 << 20])
def test_bytes_of_a_file(kind: str, every: int) -> None:
    """However it is cut; all of it, and not only the message in which it became clear."""
    audio, data, said = LiveAudio(), _file(*FILES[kind])[:12_000], set()
    for begin in range(0, len(data), every):
        try:
            audio.accept(data[begin : begin + every])
        except ContainerSent as error:
            said.add(str(error))
    (message,) = said
    assert f"got {kind}" in message
    assert "/v1/audio/transcriptions" in message
    with pytest.raises(ContainerSent):
        audio.accept(bytes(3200))
    audio.discard()
    assert len(audio.accept(bytes(3200))) == 1


def test_a_file_behind_samples_is_heard() -> None:
    """Only the beginning is looked at."""
    audio = LiveAudio()
    audio.accept(bytes(16_000))
    assert audio.accept(_file("WAV", "PCM_16"))


@pytest.mark.parametrize("encoding", ["s16le", "f32le", "mulaw", "alaw"])
@pytest.mark.parametrize("seed", range(5))
def test_samples_of_any_kind_are_no_file(encoding: PcmEncoding, seed: int) -> None:
    draw = np.random.default_rng(seed)
    data = draw.bytes(9000) if encoding != "f32le" else draw.uniform(-1, 1, 3000).astype("<f4").tobytes()
    audio = LiveAudio(encoding)
    for begin in range(0, len(data), 100):
        audio.accept(data[begin : begin + 100])


@pytest.mark.parametrize("sizes", [[3, 3198, 1, 9000], [20_000], [1]])
def test_samples_of_16_bits_stay_as_they_are(sizes: list[int]) -> None:
    """The same samples as in floats, also where a message ends within one; at another rate they are resampled."""
    samples = np.random.default_rng(0).integers(-32768, 32768, 12_000).astype("<i2").tobytes()
    kept, floats, at = LiveAudio(keeps_int16=True), LiveAudio(), 0
    for size in sizes:
        data, at = samples[at : at + size], at + size
        for own, usual in zip(kept.accept(data), floats.accept(data), strict=True):
            assert own.dtype == np.int16
            np.testing.assert_array_equal(own / np.float32(32768), usual)
    np.testing.assert_array_equal(kept.flush() / np.float32(32768), floats.flush())
    assert kept.flush().dtype == np.int16
    resampled = LiveAudio("s16le", 8000, keeps_int16=True)
    assert all(piece.dtype == np.float32 for piece in resampled.accept(samples))
