"""Media files of the kinds that people have, made by PyAV: with late tracks, gaps, several tracks, changes of rate."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soundfile
import soxr

from moulin.arrays import Floats
from moulin.audio.recording import Recording
from moulin.audio.selection import Selection
from moulin.audio.timeline import Skip


@dataclass(frozen=True)
class Track:
    """16 kHz samples [n] or [n, channels], which begin at `offset_sec`, paused for `gap_sec` at `gap_at_sec`."""

    samples: Floats
    offset_sec: float = 0.0
    gap_at_sec: float = 0.0
    gap_sec: float = 0.0
    is_default: bool | None = None
    is_comment: bool = False


def media(
    container: str,
    codec: str,
    *tracks: Track | Floats,
    rate: int = 48000,
    with_video: bool = False,
    white_from_sec: float = float("inf"),
    options: dict[str, str] | None = None,
) -> bytes:
    """A file with these audio tracks; `with_video` also ten black pictures a second, white from `white_from_sec` on."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options or {}) as output:
        packets: list[Any] = []
        known = [track if isinstance(track, Track) else Track(track) for track in tracks]
        if with_video:
            video = output.add_stream("mpeg4", rate=10)
            assert isinstance(video, av.VideoStream)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        streams = [_stream(output, codec, rate, track) for track in known]
        if with_video:
            longest_sec = max(len(track.samples) / 16000 + track.offset_sec + track.gap_sec for track in known)
            for number in range(round(longest_sec * 10)):
                picture = av.VideoFrame.from_ndarray(
                    np.full((96, 64), 255 * (number >= 10 * white_from_sec), np.uint8), "yuv420p"
                )
                picture.pts, picture.time_base = number, Fraction(1, 10)
                packets += video.encode(picture)
            packets += video.encode(None)
        for stream, track in zip(streams, known, strict=True):
            packets += _packets(stream, rate, track)
        packets = [packet for packet in packets if packet.dts is not None]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            output.mux(packet)
    return buffer.getvalue()


def _stream(output: Any, codec: str, rate: int, track: Track) -> Any:
    stream = output.add_stream(codec, rate=rate)
    channels = 1 if track.samples.ndim == 1 else track.samples.shape[1]
    stream.layout = {1: "mono", 2: "stereo", 4: "quad", 6: "5.1"}[channels]
    stream.bit_rate = 64_000 * channels
    if track.is_default is not None:
        stream.disposition = av.stream.Disposition.default if track.is_default else av.stream.Disposition(0)
    if track.is_comment:
        stream.disposition = av.stream.Disposition.comment
    if codec in ("tta", "wavpack"):
        stream.format = "s16p"  # the first that these know has 8 bits
    stream.codec_context.open()
    return stream


def _packets(stream: Any, rate: int, track: Track) -> list[Any]:
    samples = track.samples if track.samples.ndim > 1 else track.samples[:, None]
    wide = soxr.resample(samples, 16000, rate, quality="VHQ").astype(np.float32)
    layout = stream.layout.name
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wide.T), format="fltp", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    converter = av.AudioResampler(stream.format, layout, rate, frame_size=stream.frame_size or None)
    packets: list[Any] = []
    for piece in [*converter.resample(frame), *converter.resample(None)]:
        assert piece.pts is not None
        late_sec = track.offset_sec + (track.gap_sec if piece.pts >= track.gap_at_sec * rate else 0.0)
        piece.pts += round(late_sec * rate)
        packets += stream.encode(piece)
    return [*packets, *stream.encode(None)]


def wav(*channels: Floats, rate: int = 16000, format: str = "WAV", subtype: str = "PCM_16") -> bytes:
    """A file by libsndfile with these channels, cut to the shortest."""
    buffer = io.BytesIO()
    length = min(map(len, channels))
    samples = np.stack([one[:length] for one in channels], axis=1)
    with soundfile.SoundFile(buffer, "w", rate, len(channels), subtype, format=format) as file:
        for begin in range(0, length, 1 << 16):  # libsndfile cannot bear minutes of Vorbis at once
            file.write(samples[begin : begin + (1 << 16)])
    return buffer.getvalue()


def heard(source: bytes, selection: Selection = Selection(), **options: Any) -> tuple[Floats, tuple[str, ...]]:  # noqa: B008
    """A recording's waveform on its time axis, and its warnings."""
    recording = Recording(source, selection, **options)
    blocks = [np.zeros(block.samples, np.float32) if isinstance(block, Skip) else block for block in recording]
    return np.concatenate([np.zeros(0, np.float32), *blocks]), recording.warnings


def shifts_ms(found: Floats, expected: Floats, at: Sequence[float] = (0.1, 0.5, 0.8)) -> list[float]:
    """How much later than expected the sound is at some places of the recording; infinite where it is another one.

    A place without sound is moved to the next one.
    """
    length = min(len(found), len(expected))
    return [_shift_ms(found, expected, _sound_from(expected, round(length * share))) for share in at]


def _sound_from(samples: Floats, begin: int) -> int:
    return begin + int(np.argmax(np.abs(samples[begin:]) > 0.01))


def _shift_ms(found: Floats, expected: Floats, begin: int) -> float:
    one, other = found[begin : begin + 32000], expected[begin : begin + 32000]
    size = min(len(one), len(other))
    one, other = one[:size], other[:size]
    energy = float(np.linalg.norm(one) * np.linalg.norm(other))
    both = np.fft.irfft(np.fft.rfft(one, 2 * size) * np.conj(np.fft.rfft(other, 2 * size)), 2 * size)
    best = int(np.argmax(np.abs(both)))
    if abs(both[best]) < 0.7 * energy or energy == 0:
        return float("inf")
    return (best if best < size else best - 2 * size) / 16
