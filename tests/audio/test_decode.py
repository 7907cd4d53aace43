from __future__ import annotations

import io
import os
import struct
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from moulin.audio.decode import audio_blocks, declared_duration_sec, read_audio, resample
from moulin.errors import AudioError

SECONDS = 1.5


def chirp(rate: int = 16000, seconds: float = SECONDS) -> NDArray[np.float32]:
    """200 to 3000 Hz, below half of every rate tested, with a fade at both ends that codecs cannot smear."""
    time = np.arange(round(rate * seconds)) / rate
    sweep = np.sin(2 * np.pi * (200 * time + 1400 * time**2 / seconds))
    faded: NDArray[np.float64] = 0.3 * sweep * np.sin(np.pi * time / seconds)
    return faded.astype(np.float32)


def signal_to_noise_db(decoded: NDArray[np.float32], original: NDArray[np.float32]) -> float:
    common = min(len(decoded), len(original))
    noise = decoded[:common] - original[:common]
    return float(10 * np.log10((original[:common] ** 2).sum() / ((noise**2).sum() + 1e-20)))


def sound_bytes(
    samples: NDArray[np.float32], rate: int = 16000, format: str = "WAV", subtype: str = "PCM_16"
) -> bytearray:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return bytearray(buffer.getvalue())


def ffmpeg_bytes(
    samples: NDArray[np.float32], container: str, codec: str, rate: int = 48000, layout: str = "mono"
) -> bytes:
    """Encode `samples` [N] into each channel of `layout`."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        stream.layout = layout
        channels = av.AudioLayout(layout).nb_channels
        stream.bit_rate = 96_000 * channels
        frame = av.AudioFrame.from_ndarray(np.tile(samples, (channels, 1)), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        stream.codec_context.open()
        converter = av.AudioResampler(stream.format, layout, rate, frame_size=stream.frame_size or None)
        for piece in [*converter.resample(frame), *converter.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def video_without_sound() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        black = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        output.mux(stream.encode(black))
        output.mux(stream.encode(None))
    return buffer.getvalue()


# What soundfile reads.


@pytest.mark.parametrize(
    ("format", "subtype", "least_db"),
    [
        ("WAV", "PCM_U8", 30), ("WAV", "PCM_16", 70), ("WAV", "PCM_24", 100), ("WAV", "PCM_32", 100),
        ("WAV", "FLOAT", 100), ("WAV", "DOUBLE", 100), ("WAV", "ULAW", 30), ("WAV", "ALAW", 30),
        ("WAVEX", "PCM_16", 70), ("WAVEX", "FLOAT", 100), ("RF64", "PCM_16", 70), ("AIFF", "PCM_16", 70),
        ("FLAC", "PCM_16", 70), ("FLAC", "PCM_24", 100),
        ("OGG", "VORBIS", 15), ("OGG", "OPUS", 15), ("MP3", "MPEG_LAYER_III", 20),
    ],
)  # fmt: skip
def test_formats_of_libsndfile(tmp_path: Path, format: str, subtype: str, least_db: float) -> None:
    path = tmp_path / "speech.audio"
    path.write_bytes(sound_bytes(chirp(), 16000, format, subtype))
    decoded = read_audio(path)
    assert decoded.dtype == np.float32
    assert len(decoded) == pytest.approx(16000 * SECONDS, abs=1)
    assert signal_to_noise_db(decoded, chirp()) > least_db


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_any_rate_and_channel_count(rate: int, channels: int) -> None:
    decoded = read_audio(bytes(sound_bytes(np.tile(chirp(rate)[:, None], channels), rate)))
    assert len(decoded) == pytest.approx(16000 * SECONDS, abs=1)
    assert signal_to_noise_db(decoded, chirp()) > 60


def test_channels_are_averaged() -> None:
    stereo = np.stack([chirp(), np.zeros_like(chirp())], axis=1)
    assert signal_to_noise_db(read_audio(bytes(sound_bytes(stereo))), chirp() / 2) > 70


def test_another_output_rate() -> None:
    decoded = read_audio(bytes(sound_bytes(chirp())), sample_rate=8000)
    assert signal_to_noise_db(decoded, chirp(8000)) > 60


def test_blockwise_resampling_equals_resampling_the_whole() -> None:
    samples = chirp(44100)
    decoded = read_audio(bytes(sound_bytes(samples, 44100, subtype="FLOAT")))
    np.testing.assert_allclose(decoded, resample(samples, 44100, 16000), atol=1e-6)


# What only FFmpeg reads.


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
@pytest.mark.parametrize(
    ("container", "codec", "extension"),
    [("ipod", "aac", "m4a"), ("mp4", "aac", "mp4"), ("webm", "libopus", "webm"), ("matroska", "pcm_s16le", "mkv")],
)
def test_formats_of_ffmpeg(tmp_path: Path, container: str, codec: str, extension: str, layout: str) -> None:
    path = tmp_path / f"speech.{extension}"
    path.write_bytes(ffmpeg_bytes(chirp(48000), container, codec, layout=layout))
    decoded = read_audio(path)
    assert len(decoded) == pytest.approx(16000 * SECONDS, abs=1600)
    # Of six channels, AAC keeps but the lowest frequencies of one (the subwoofer's).
    assert signal_to_noise_db(decoded, chirp()) > (12 if layout == "5.1" else 20)


def test_raw_aac_stream_has_the_right_content_without_the_encoder_delay() -> None:
    decoded = read_audio(ffmpeg_bytes(chirp(48000), "adts", "aac"))
    assert np.corrcoef(decoded[: len(chirp())], chirp()[: len(decoded)])[0, 1] > 0.97


def test_without_pyav_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ffmpeg_bytes(chirp(48000), "mp4", "aac")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match="cannot be decoded") as caught:
        read_audio(data)
    assert "pip install '.[media]' in moulin's folder" in (caught.value.hint or "")


# Where audio comes from.


def test_path_string_bytes_file_and_pipe_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "speech.flac"
    path.write_bytes(sound_bytes(chirp(), format="FLAC"))
    expected = read_audio(path)
    np.testing.assert_array_equal(read_audio(str(path)), expected)
    np.testing.assert_array_equal(read_audio(path.read_bytes()), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_audio(file), expected)
        assert not file.closed
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(path.read_bytes(),))
    writer.start()
    np.testing.assert_array_equal(read_audio(pipe), expected)
    writer.join()


def test_content_counts_not_the_extension(tmp_path: Path) -> None:
    for name in ("speech.raw", "speech.txt", "speech.mp3", "speech"):
        (tmp_path / name).write_bytes(sound_bytes(chirp()))
        assert len(read_audio(tmp_path / name)) == 16000 * SECONDS


def test_the_result_belongs_to_the_caller() -> None:
    decoded = read_audio(bytes(sound_bytes(chirp())))
    decoded *= 0.5


def test_a_limit_on_the_duration() -> None:
    data = bytes(sound_bytes(chirp()))
    assert len(read_audio(data, max_duration_sec=SECONDS)) == 16000 * SECONDS
    with pytest.raises(AudioError, match="too long: expected at most 1 s"):
        read_audio(data, max_duration_sec=1)


# Files that are not quite right but hold audio.


@pytest.mark.parametrize("declared", [0, 0x7FFFFFF0, 0xFFFFFFFF])
def test_a_wav_with_a_wrong_length_is_read_to_its_end(declared: int) -> None:
    """Streamed WAVs, and recorders that were killed before they could fill in the length."""
    data = sound_bytes(chirp())
    data[4:8] = data[40:44] = struct.pack("<I", declared)
    assert signal_to_noise_db(read_audio(bytes(data)), chirp()) > 70


@pytest.mark.parametrize("cut", [0.3, 0.5, 0.9])
@pytest.mark.parametrize(
    ("format", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)]
)
def test_a_truncated_file_is_read_to_where_it_ends(format: str, subtype: str, cut: float) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * 16000).astype(np.float32)  # noise: size ~ duration
    data = sound_bytes(samples, 16000, format, subtype)
    decoded = read_audio(bytes(data[: int(len(data) * cut)]))
    assert len(decoded) == pytest.approx(cut * len(samples), abs=1.1 * 16000)


def test_truncation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32000).astype(np.float32)
    data = sound_bytes(noise, format="FLAC")
    read_audio(bytes(data[: len(data) // 2]))
    assert "audio data: the file is damaged or cut short: about 1.2 s" in caplog.text


def test_a_damaged_packet_in_the_middle_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(ffmpeg_bytes(chirp(48000), "adts", "aac"))
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    assert len(read_audio(bytes(data))) > 16000 * SECONDS * 0.8
    assert "damaged" in caplog.text


@pytest.mark.parametrize(("format", "subtype"), [("WAV", "PCM_16"), ("OGG", "VORBIS"), ("AIFF", "PCM_16")])
def test_no_samples_are_an_empty_waveform(format: str, subtype: str) -> None:
    decoded = read_audio(bytes(sound_bytes(np.zeros(0, np.float32), 44100, format, subtype)))
    assert decoded.shape == (0,)
    assert decoded.dtype == np.float32


# What is refused, always naming the file.


def wav_with(offset: int, field: bytes) -> bytes:
    data = sound_bytes(chirp())
    data[offset : offset + len(field)] = field
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"hello world\n" * 100, "cannot be decoded as audio: libsndfile says 'Format not recognised'"),
        (np.random.default_rng(0).bytes(50_000), "cannot be decoded as audio"),
        (bytes(50_000), "cannot be decoded as audio"),
        (bytes(sound_bytes(chirp())[:30]), "cannot be decoded as audio"),
        (bytes(sound_bytes(chirp())[:44]), r"has no audio: .*\(48,000 bytes that its header declares are missing\)"),
        (bytes(sound_bytes(chirp(), format="FLAC")[:42]), r"has no audio: .*0\.000 s of a declared"),
        (bytes(sound_bytes(chirp(), format="FLAC")[:60]), "cannot be decoded as audio"),
        (wav_with(24, struct.pack("<I", 0)), "cannot be decoded as audio"),
        (wav_with(24, struct.pack("<I", 1)), "sample rate of 1000 to 768000 Hz, got 1"),
        (wav_with(24, struct.pack("<I", 0xFFFFFFFF)), "cannot be decoded as audio"),
        (wav_with(22, struct.pack("<H", 0)), "cannot be decoded as audio: libsndfile says 'Channel count is zero'"),
        (wav_with(22, struct.pack("<H", 0xFFFF)), "cannot be decoded as audio"),
        (ffmpeg_bytes(chirp(48000), "mp4", "aac")[:5000], "cannot be decoded as audio"),
        (video_without_sound(), "has no audio track, only video streams"),
    ],
    ids=[
        "empty", "text", "noise", "zeros", "half-header", "header-alone", "flac-header-alone", "flac-header",
        "rate-0", "rate-1", "rate-max", "channels-0", "channels-max", "mp4-without-index", "video",
    ],
)  # fmt: skip
def test_refuses_what_is_not_audio(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(content)
    for source, name in ((path, str(path)), (content, "audio data")):
        with pytest.raises(AudioError, match=message) as caught:
            read_audio(source)
        assert caught.value.message.startswith(name)


@pytest.mark.parametrize("suffix", ["flac", "mp3", "ogg", "aac", "opus", "m4a"])
@pytest.mark.parametrize(
    "content",
    [b"not audio at all", b"<html><title>404 Not Found</title></html>" * 500, bytes(1000)],
    ids=["text", "html", "zeros"],
)
def test_a_suffix_makes_no_audio(tmp_path: Path, suffix: str, content: bytes) -> None:
    """FFmpeg takes any file called .flac for one, and then finds nothing in it."""
    path = tmp_path / f"speech.{suffix}"
    path.write_bytes(content)
    with pytest.raises(AudioError, match="cannot be decoded as audio"):
        read_audio(path)


@pytest.mark.parametrize("rate", [16000, 48000])
def test_flac_without_samples_is_an_empty_waveform(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "speech.flac"
    header = bytearray(sound_bytes(chirp(rate), rate, "FLAC")[:42])
    header[4] |= 0x80  # the last block of metadata
    header[21:26] = bytes([header[21] & 0xF0, 0, 0, 0, 0])
    path.write_bytes(header)
    assert read_audio(path).shape == (0,)


def test_refuses_missing_files_directories_and_impossible_paths(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"none\.wav does not exist"):
        read_audio(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="is a directory"):
        read_audio(tmp_path)
    with pytest.raises(AudioError, match="cannot be read"):
        read_audio("a\0b.wav")
    with pytest.raises(AudioError, match="opened in binary mode, got str"):
        read_audio(io.StringIO("text"))  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("rate", [16000, 8000])
def test_says_where_a_float_wav_is_not_finite(bad: float, rate: int) -> None:
    samples = np.stack([chirp(rate), chirp(rate)], axis=1)
    samples[5000, 1] = bad
    with pytest.raises(AudioError, match=rf"got {bad} at sample 5000 \({5000 / rate:.3f} s\)"):
        read_audio(bytes(sound_bytes(samples, rate, subtype="FLOAT")))


def test_refuses_a_float_wav_on_the_scale_of_integers() -> None:
    with pytest.raises(AudioError, match=r"audio data: expected floats in \[-1, 1\], got a peak of \d{4}"):
        read_audio(bytes(sound_bytes(chirp() * 32768, subtype="FLOAT")))


def test_a_playlist_cannot_make_the_server_read_other_files(tmp_path: Path) -> None:
    """FFmpeg would follow both of these to the file next to them."""
    (tmp_path / "secret.wav").write_bytes(sound_bytes(chirp()))
    (tmp_path / "secret.ts").write_bytes(ffmpeg_bytes(chirp(48000), "mpegts", "aac"))
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.m3u8").write_text(hls)
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile 'secret.wav'\n")
    for name in ("list.m3u8", "list.ffconcat"):
        with av.open(str(tmp_path / name)) as container:
            assert next(container.decode(audio=0)).samples  # the danger is real
        with pytest.raises(AudioError, match="cannot be decoded as audio"):
            read_audio(tmp_path / name)


# Resampling.


@pytest.mark.parametrize(("from_rate", "to_rate"), [(8000, 16000), (44100, 16000), (16000, 8000)])
def test_resample(from_rate: int, to_rate: int) -> None:
    resampled = resample(chirp(from_rate), from_rate, to_rate)
    assert resampled.dtype == np.float32
    assert signal_to_noise_db(resampled, chirp(to_rate)) > 60


def test_resample_to_the_same_rate_or_of_nothing() -> None:
    samples = chirp()
    assert resample(samples, 16000, 16000) is samples
    assert resample(samples[:0], 8000, 16000).shape == (0,)


def test_resample_refuses_nonsensical_rates() -> None:
    with pytest.raises(AudioError, match="got 0"):
        resample(chirp(), 0, 16000)
    with pytest.raises(AudioError, match="got -1"):
        resample(chirp(), 16000, -1)


def test_blocks_are_the_whole_and_small() -> None:
    data = bytes(sound_bytes(chirp(44100), 44100, "FLAC"))
    blocks = list(audio_blocks(data))
    assert len(blocks) > 5
    assert max(map(len, blocks)) <= 4096
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(data))


def test_a_name_for_messages() -> None:
    with pytest.raises(AudioError, match=r"^talk\.mp3 cannot be decoded"):
        next(audio_blocks(b"not audio", name="talk.mp3"))


def test_the_declared_length(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(sound_bytes(chirp(48000), 48000, "FLAC"))
    assert declared_duration_sec(tmp_path / "a.flac") == pytest.approx(len(chirp(48000)) / 48000)
    (tmp_path / "b.flac").write_bytes(b"not audio")
    assert declared_duration_sec(tmp_path / "b.flac") is None
    assert declared_duration_sec(tmp_path / "absent") is None
