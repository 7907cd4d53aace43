"""Kaldi's data folder: `wav.scp` (or `segments` of it) and `text`."""

from __future__ import annotations

from pathlib import Path

from moulin.errors import OptionsError
from moulin.evaluate.manifests.lines import read_lines
from moulin.evaluate.utterance import Utterance


def read_kaldi(wav_scp: Path, text: Path | None = None) -> list[Utterance]:
    """The utterances of `text` (by default the file of that name beside `wav_scp`), in its order.

    With a file `segments` beside, utterances are pieces of the recordings. Commands (`sox … |`) and archives
    (`FILE.ark:OFFSET`) are refused: a list of files to measure on does not get to run programs. Raises OptionsError.
    """
    folder = wav_scp.parent
    recordings = {key: _audio(wav_scp, number, key, value) for key, (number, value) in _table(wav_scp).items()}
    segments_file = folder / "segments"
    segments = _table(segments_file) if segments_file.is_file() else None
    text = text or folder / "text"
    utterances = []
    for key, (number, said) in _table(text).items():
        if segments is None:
            recording, start_sec, duration_sec = key, 0.0, None
        elif key in segments:
            recording, start_sec, duration_sec = _segment(segments_file, *segments[key])
        else:
            raise OptionsError(f"{key!r} on line {number} of {text} is not in {segments_file}")
        if recording not in recordings:
            raise OptionsError(f"{recording!r}, which {text} names on line {number}, is not in {wav_scp}")
        utterances.append(Utterance(recordings[recording], said, key, start_sec, duration_sec))
    return utterances


def _table(file: Path) -> dict[str, tuple[int, str]]:
    """The lines of `file` by their first word: (line number, rest of the line)."""
    table: dict[str, tuple[int, str]] = {}
    for number, line in read_lines(file):
        key, _, value = line.partition(" ") if " " in line else line.partition("\t")
        if key in table:
            raise OptionsError(f"{key!r} on line {number} of {file} is already on line {table[key][0]}")
        table[key] = (number, value.strip())
    return table


def _audio(wav_scp: Path, number: int, key: str, value: str) -> Path:
    if value.endswith("|"):
        raise OptionsError(
            f"Expected a file for {key!r} on line {number} of {wav_scp}, got the command {value!r}",
            hint="commands are not run; write the audio into files first (wav-copy), or list the files themselves",
        )
    if not value:
        raise OptionsError(f"Expected a file for {key!r} on line {number} of {wav_scp}, got nothing")
    file = Path(value)
    beside = wav_scp.parent / file
    if not file.is_file() and not beside.is_file() and ".ark:" in value:
        raise OptionsError(
            f"Expected a file for {key!r} on line {number} of {wav_scp}, got a place in an archive: {value!r}",
            hint="write the audio into files first (wav-copy)",
        )
    # Kaldi's paths are relative to where its scripts run, most others to the list itself.
    return beside if beside.is_file() else file


def _segment(file: Path, number: int, value: str) -> tuple[str, float, float | None]:
    """The recording of a segment, its offset and its duration, for which Kaldi writes -1 up to the end."""
    try:
        recording, start, end = value.split()
        start_sec, end_sec = float(start), float(end)
    except ValueError:
        raise OptionsError(
            f"Expected RECORDING START END in seconds on line {number} of {file}, got {value!r}"
        ) from None
    return recording, start_sec, None if end_sec < 0 else end_sec - start_sec
