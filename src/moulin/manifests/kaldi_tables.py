"""Kaldi's tables: `wav.scp`, `segments`, `text`, a key and a value on each line."""

from __future__ import annotations

from pathlib import Path

from moulin.errors import OptionsError
from moulin.manifests.lines import read_lines


def read_table(file: Path) -> dict[str, tuple[int, str]]:
    """The lines of `file` by their first word: (line number, rest of the line). Raises OptionsError, also where a word
    occurs twice."""
    table: dict[str, tuple[int, str]] = {}
    for number, line in read_lines(file):
        key, _, value = line.partition(" ") if " " in line else line.partition("\t")
        if key in table:
            raise OptionsError(f"{key!r} on line {number} of {file} is already on line {table[key][0]}")
        table[key] = (number, value.strip())
    return table


def check_audio(wav_scp: Path, number: int, key: str, value: str) -> None:
    """Raises OptionsError where `value` is no file's path. Commands (`sox … |`) are refused: a list of files does not
    get to run programs."""
    if value.endswith("|"):
        raise OptionsError(
            f"Expected a file for {key!r} on line {number} of {wav_scp}, got the command {value!r}",
            hint="commands are not run; write the audio into files first (wav-copy), or list the files themselves",
        )
    if not value:
        raise OptionsError(f"Expected a file for {key!r} on line {number} of {wav_scp}, got nothing")


def archive_error(wav_scp: Path, number: int, key: str, value: str) -> OptionsError:
    """The error of a place in an archive (`FILE.ark:OFFSET`)."""
    return OptionsError(
        f"Expected a file for {key!r} on line {number} of {wav_scp}, got a place in an archive: {value!r}",
        hint="write the audio into files first (wav-copy)",
    )


def read_segment(file: Path, number: int, value: str) -> tuple[str, float, float | None]:
    """The recording of a segment, its offset and its duration, for which Kaldi writes -1 up to the end.

    Raises OptionsError.
    """
    try:
        recording, start, end = value.split()
        start_sec, end_sec = float(start), float(end)
    except ValueError:
        raise OptionsError(
            f"Expected RECORDING START END in seconds on line {number} of {file}, got {value!r}"
        ) from None
    return recording, start_sec, None if end_sec < 0 else end_sec - start_sec
