"""Whatever a decoder raises, wherever it raises it, is an AudioError; what ends the program passes through."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import soxr

from moulin.audio.decode import audio_blocks, declared_duration_sec, decode_pcm, read_audio
from moulin.audio.source import AudioSource, RawFormat
from moulin.client.protocol import waveform
from moulin.errors import AudioError
from moulin.long_audio.pieces import Pieces
from tests.audio.test_decode import chirp, ffmpeg_bytes, sound_bytes

WAV = bytes(sound_bytes(chirp(44100), 44100))
M4A = ffmpeg_bytes(chirp(48000), "ipod", "aac")


class _LibrarysOwnError(Exception):
    def __init__(self) -> None:  # pickles and copies fail on this kind
        super().__init__("no such thing", 7)


EXCEPTIONS: list[Exception] = [
    TypeError("open() got an unexpected keyword argument 'metadata_errors'"),
    KeyError("codec"),
    OSError(5, "Input/output error"),
    MemoryError(),
    RuntimeError("internal"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ValueError("no"),
    StopIteration(),
    StopAsyncIteration(),
    AttributeError("nb_channels"),
    ZeroDivisionError("division by zero"),
    AssertionError(),
    ImportError("libavcodec.so.61: cannot open shared object file"),
    ModuleNotFoundError("No module named 'numpy.core'", name="numpy.core"),
    NotImplementedError(),
    RecursionError("maximum recursion depth exceeded"),
    EOFError(),
    BufferError("two\nlines"),
    ExceptionGroup("several", [ValueError("a")]),
    _LibrarysOwnError(),
]
ENDS = [KeyboardInterrupt(), SystemExit(3), GeneratorExit()]


@dataclass(frozen=True)
class Seam:
    """A place in a decoder, and a file that gets there."""

    name: str
    content: bytes
    break_it: Callable[[pytest.MonkeyPatch, BaseException], None]


def _raising(error: BaseException, after: int = 0, first: Callable[..., Any] | None = None) -> Callable[..., Any]:
    calls = iter(range(10**6))

    def call(*arguments: Any, **options: Any) -> Any:
        if next(calls) < after:
            assert first is not None
            return first(*arguments, **options)
        raise error

    return call


class _Around:
    """Something of PyAV's or soxr's, whose methods cannot be replaced, with some of them replaced."""

    def __init__(self, real: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced)
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def _sound(method: str, after: int = 0) -> Callable[[pytest.MonkeyPatch, BaseException], None]:
    def break_it(patch: pytest.MonkeyPatch, error: BaseException) -> None:
        patch.setattr(soundfile.SoundFile, method, _raising(error, after, getattr(soundfile.SoundFile, method)))

    return break_it


def _closing_sound(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    def close(sound: Any) -> None:
        is_open = not sound.closed
        real_close(sound)
        if is_open:  # soundfile closes once more when the object is collected
            raise error

    real_close = soundfile.SoundFile.close
    patch.setattr(soundfile.SoundFile, "close", close)


def _opening_av(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    patch.setattr(av, "open", _raising(error))


def _container(**replaced: Callable[[Any, BaseException], Any]) -> Callable[[pytest.MonkeyPatch, BaseException], None]:
    def break_it(patch: pytest.MonkeyPatch, error: BaseException) -> None:
        real_open = av.open

        def opened(*arguments: Any, **options: Any) -> Any:
            real = real_open(*arguments, **options)
            return _Around(real, **{name: make(real, error) for name, make in replaced.items()})

        patch.setattr(av, "open", opened)

    return break_it


def _packets(broken: Callable[[int, Any, BaseException], Any]) -> Callable[[Any, BaseException], Any]:
    def demux(container: Any, error: BaseException) -> Any:
        def packets(stream: Any) -> Iterator[Any]:
            for number, packet in enumerate(container.demux(stream)):
                yield broken(number, packet, error)

        return packets

    return demux


def _third_packet(number: int, packet: Any, error: BaseException) -> Any:
    if number == 3:
        raise error
    return packet


def _third_decode(number: int, packet: Any, error: BaseException) -> Any:
    return _Around(packet, decode=_raising(error)) if number == 3 else packet


def _resampling_av(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    real = av.filter.Graph
    patch.setattr(av.filter, "Graph", lambda: _Around(real(), pull=_raising(error)))


def _resampling(method: str) -> Callable[[pytest.MonkeyPatch, BaseException], None]:
    def break_it(patch: pytest.MonkeyPatch, error: BaseException) -> None:
        real = soxr.ResampleStream

        def made(*arguments: Any, **options: Any) -> Any:
            if method == "new":
                raise error
            stream = real(*arguments, **options)
            if method == "first":
                return _Around(stream, resample_chunk=_raising(error))
            return _Around(stream, resample_chunk=_raising(error, 3, stream.resample_chunk))

        patch.setattr(soxr, "ResampleStream", made)

    return break_it


SEAMS = [
    Seam("libsndfile opens", WAV, _sound("__init__")),
    Seam("libsndfile's first block", WAV, _sound("read")),
    Seam("libsndfile's third block", WAV, _sound("read", 2)),
    Seam("libsndfile closes", WAV, _closing_sound),
    Seam("FFmpeg opens", M4A, _opening_av),
    Seam("FFmpeg's streams", M4A, _container(streams=lambda _, error: _Around(None, __len__=_raising(error)))),
    Seam("FFmpeg's third packet", M4A, _container(demux=_packets(_third_packet))),
    Seam("FFmpeg decodes", M4A, _container(demux=_packets(_third_decode))),
    Seam("FFmpeg's samples", M4A, _resampling_av),
    Seam("FFmpeg closes", M4A, _container(close=lambda _, error: _raising(error))),
    Seam("soxr starts", WAV, _resampling("new")),
    Seam("soxr's first block", WAV, _resampling("first")),
    Seam("soxr's third block", WAV, _resampling("third")),
]
by_seam = pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.name)


@by_seam
@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_any_exception_is_an_audio_error(seam: Seam, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(error, StopIteration) and seam.name == "FFmpeg's third packet":
        pytest.skip("that is how packets end")
    seam.break_it(monkeypatch, error)
    # A WAV that libsndfile does not open is read by FFmpeg, and what FFmpeg does not open was refused by libsndfile.
    if seam.name in ("libsndfile opens", "libsndfile's first block"):
        monkeypatch.setattr(av, "open", _raising(ValueError("nor this one")))
    with pytest.raises(AudioError) as caught:
        read_audio(seam.content, name="talk.audio")
    message = str(caught.value)
    assert message.startswith("talk.audio cannot be decoded")
    if seam.name != "FFmpeg's streams":
        assert type(error).__name__ in message
    assert "\n" not in message


@by_seam
@pytest.mark.parametrize("end", ENDS, ids=lambda end: type(end).__name__)
def test_what_ends_the_program_passes_through(seam: Seam, end: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    if seam.name == "FFmpeg's streams":
        pytest.skip("the stand-in fails with a TypeError of its own")
    seam.break_it(monkeypatch, end)
    with pytest.raises(type(end)):
        read_audio(seam.content)


@by_seam
def test_every_way_in_says_the_same(seam: Seam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "talk.audio"
    path.write_bytes(seam.content)
    source = AudioSource(str(path))
    ways: list[Callable[[], Any]] = [
        lambda: read_audio(path),
        lambda: list(audio_blocks(io.BytesIO(seam.content))),
        source.read,
        lambda: list(Pieces(audio_blocks(path), max_utterance_sec=30.0)),
        lambda: list(Pieces(audio_blocks(path), max_utterance_sec=1.0)),
        lambda: waveform(path),
    ]
    for way in ways:
        with monkeypatch.context() as patch:
            seam.break_it(patch, TypeError("no"))
            if seam.name in ("libsndfile opens", "libsndfile's first block"):
                patch.setattr(av, "open", _raising(ValueError("nor this one")))
            with pytest.raises(AudioError, match="cannot be decoded"):
                way()


def test_a_developer_finds_the_traceback(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(av, "open", _raising(TypeError("a new version has other arguments")))
    with caplog.at_level(logging.DEBUG, "moulin"), pytest.raises(AudioError) as caught:
        read_audio(M4A)
    assert "FFmpeg says 'TypeError: a new version has other arguments'" in str(caught.value)
    assert "Traceback" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


def test_a_failure_to_close_does_not_disturb_who_stops_early(monkeypatch: pytest.MonkeyPatch) -> None:
    _closing_sound(monkeypatch, OSError("no"))
    blocks = audio_blocks(WAV)
    assert len(next(blocks))
    blocks.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("missing", ["soundfile", "soxr"])
def test_a_library_that_cannot_be_loaded(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "soundfile":
        assert len(read_audio(WAV)) > 16_000  # FFmpeg reads it too
        monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=missing):
        read_audio(WAV)


def test_ffmpeg_that_cannot_be_loaded_is_another_thing_than_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError) as missing:
        read_audio(M4A)
    assert "pip install" in (missing.value.hint or "")
    monkeypatch.setitem(sys.modules, "av", _Broken("av"))
    with pytest.raises(AudioError, match="ImportError: libavcodec"):
        read_audio(M4A)


class _Broken(type(sys)):  # type: ignore[misc]
    def __getattr__(self, name: str) -> Any:
        raise ImportError("libavcodec.so.61: cannot open shared object file")


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_the_declared_length_is_unknown_then(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfile, "info", _raising(error))
    assert declared_duration_sec("talk.wav") is None


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_headerless_audio(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soxr, "resample", _raising(error))
    monkeypatch.setattr(soxr, "ResampleStream", _raising(error))
    with pytest.raises(AudioError, match=type(error).__name__):
        decode_pcm(bytes(3200), sample_rate=8000)
    path = tmp_path / "talk.raw"
    path.write_bytes(bytes(3200))
    with pytest.raises(AudioError, match=type(error).__name__):
        AudioSource(str(path), RawFormat("s16le", 8000)).read()


@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
def test_a_file_object_that_fails(error: Exception) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:  # noqa: ARG002
            raise error

    with pytest.raises(AudioError, match="cannot be read"):
        read_audio(Failing(WAV))


def test_tags_that_are_not_utf8_do_no_harm() -> None:
    """PyAV below 19 raises UnicodeDecodeError for them."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        output.metadata["title"] = "TITLEOFTHISTALK"
        stream = output.add_stream("pcm_s16le", rate=16000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        samples = (chirp() * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    data = buffer.getvalue()
    assert data.count(b"TITLEOFTHISTALK") == 1
    assert len(read_audio(data.replace(b"TITLEOFTHISTALK", b"\xc4\xd6\xdc\xe4\xf6OFTHISTALK"))) == 24_000
