from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from moulin.audio.source import AudioSource, RawFormat, find_sources, parse_raw_format
from moulin.errors import AudioError, OptionsError

from .media import media


def test_folders_are_searched_by_suffix_and_files_taken_as_named(tmp_path: Path) -> None:
    for name in ("b.WAV", "a/z.flac", "a/notes.txt", "speech.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.wav").symlink_to("nowhere.wav")
    found = find_sources([str(tmp_path / "speech.bin"), "-", str(tmp_path)])
    names = ["speech.bin", "-", "a/z.flac", "b.WAV", "gone.wav"]
    assert [source.name for source in found] == [name if name == "-" else str(tmp_path / name) for name in names]
    with pytest.raises(AudioError, match=r"gone\.wav"):
        found[-1].read()


KINDS = {
    "a.3gp": ("3gp", "aac"), "b.MOV": ("mov", "aac"), "c.avi": ("avi", "libmp3lame"), "d.mp2": ("mp2", "mp2"),
    "e.flv": ("flv", "aac"), "f.m4b": ("ipod", "aac"), "g.weba": ("webm", "libopus"), "h.ts": ("mpegts", "aac"),
    "i.oga": ("ogg", "flac"), "j.mka": ("matroska", "libopus"), "k.wmv": ("asf", "wmav2"), "l.aac": ("adts", "aac"),
    "m.m4v": ("mp4", "aac"), "n.ac3": ("ac3", "ac3"), "p.vob": ("vob", "mp2"), "q.rm": ("rm", "ac3"),
    "r.ogv": ("ogg", "libopus"), "s.f4v": ("f4v", "aac"), "t.ismv": ("ismv", "aac"),
}  # fmt: skip


def test_a_folder_has_what_the_decoders_read(tmp_path: Path) -> None:
    tone = (0.3 * np.sin(np.arange(16000) / 5)).astype(np.float32)
    for name, (container, codec) in KINDS.items():
        (tmp_path / name).write_bytes(media(container, codec, tone, rate=44100 if container == "flv" else 48000))
    soundfile.write(tmp_path / "o.voc", tone, 16000, format="VOC", subtype="PCM_16")
    for name in ("._a.wav", ".hidden/a.wav", "page.ts", "notes.txt", "readme"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("export const a = 1")
    said: list[tuple[str, list[str]]] = []
    found = find_sources(
        [str(tmp_path)], on_skipped=lambda folder, files: said.append((folder, [file.name for file in files]))
    )
    assert [Path(source.name).name for source in found] == sorted([*KINDS, "o.voc"])
    assert said == [(str(tmp_path), ["notes.txt", "page.ts", "readme"])]
    for source in found:
        assert len(source.read()) == pytest.approx(16000, abs=1600)


def test_a_folder_without_audio(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(AudioError, match="no audio in the folder"):
        find_sources([str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "raw"),
    [("s16le:8000", RawFormat("s16le", 8000)), ("mulaw:8000:2", RawFormat("mulaw", 8000, 2))],
)
def test_raw_formats(text: str, raw: RawFormat) -> None:
    assert parse_raw_format(text) == raw


@pytest.mark.parametrize("text", ["", "s16le", "s16le:", "mp3:8000", "s16le:8000:1:2", "s16le:-8000"])
def test_texts_that_are_no_raw_format(text: str) -> None:
    with pytest.raises(OptionsError, match=r"ENCODING:RATE or ENCODING:RATE:CHANNELS, got"):
        parse_raw_format(text)


def test_the_whole_file_is_read(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, "FLOAT")
    source = AudioSource(str(tmp_path / "a.wav"))
    np.testing.assert_array_equal(source.read(), samples)
    assert source.declared_sec() == 1.25


def test_headerless_audio(tmp_path: Path) -> None:
    samples = np.arange(-200, 200, dtype="<i2")
    (tmp_path / "a.raw").write_bytes(samples.tobytes())
    source = AudioSource(str(tmp_path / "a.raw"), RawFormat("s16le", 16_000))
    np.testing.assert_array_equal(source.read() * 32768, samples)
    assert source.declared_sec() is None
