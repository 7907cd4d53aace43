"""Damaged recordings in every container: samples or an AudioError, and no end of the process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.audio.test_decode import ffmpeg_bytes, sound_bytes

from .conftest import Seeds
from .mutations import mutated

_SOUND = (0.2 * np.sin(np.arange(8000) / 5)).astype(np.float32)
_BY_LIBSNDFILE = {
    "wav": ("WAV", "PCM_16"),
    "ulaw.wav": ("WAV", "ULAW"),
    "w64": ("W64", "PCM_24"),
    "aiff": ("AIFF", "FLOAT"),
    "caf": ("CAF", "ALAC_16"),
    "au": ("AU", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}
_BY_FFMPEG = {
    "m4a": ("ipod", "aac", 48000),
    "mov": ("mov", "pcm_s16le", 16000),
    "ts": ("mpegts", "aac", 48000),
    "aac": ("adts", "aac", 16000),
    "webm": ("webm", "libopus", 48000),
    "mkv": ("matroska", "flac", 16000),
    "wma": ("asf", "wmav2", 16000),
    "avi": ("avi", "mp3", 16000),
}
CONTAINERS = (*_BY_LIBSNDFILE, *_BY_FFMPEG)
_HANGS_SEC = 120


@cache
def recording(kind: str) -> bytes:
    """Half a second of a tone in a container."""
    if kind in _BY_LIBSNDFILE:
        form, subtype = _BY_LIBSNDFILE[kind]
        return bytes(sound_bytes(_SOUND, 16000, form, subtype))
    container, codec, rate = _BY_FFMPEG[kind]
    return ffmpeg_bytes(_SOUND, container, codec, rate)


def outcomes(files: Iterable[Path]) -> dict[str, str]:
    """What came of each file; a process that ended is another outcome, and the next goes on behind it."""
    waiting = [str(file) for file in files]
    found: dict[str, str] = {}
    while waiting:
        ran = subprocess.run(
            [sys.executable, "-m", "tests.hostile.audio_child", *waiting],
            capture_output=True,
            text=True,
            timeout=_HANGS_SEC + len(waiting),
            check=False,
        )
        for line in ran.stdout.splitlines():
            file, _, outcome = line.partition("\t")
            found[file] = outcome or f"the process ended with {ran.returncode}"
        done = ran.stdout.count("\n") + (not ran.stdout.endswith("\n"))
        assert done, ran.stderr
        waiting = waiting[done:]
    return found


@pytest.mark.parametrize("kind", CONTAINERS)
def test_recordings(tmp_path: Path, kind: str, seeds: Seeds, survived: dict[str, int]) -> None:
    original = recording(kind)
    files = {tmp_path / f"{seed}.{kind}": seed for seed in seeds(0.3)}
    for file, seed in files.items():
        file.write_bytes(mutated(original, seed))
    bad = []
    for name, outcome in outcomes(files).items():
        survived[outcome] = survived.get(outcome, 0) + 1
        if outcome not in ("samples", "AudioError"):
            bad.append(f"seed {files[Path(name)]}: {outcome}: {Path(name).read_bytes()[:256].hex()}")
    assert bad == []


def test_the_child_tells_every_outcome(tmp_path: Path) -> None:
    (tmp_path / "good.wav").write_bytes(recording("wav"))
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    assert list(outcomes([tmp_path / "good.wav", tmp_path / "bad.wav"]).values()) == ["samples", "AudioError"]
