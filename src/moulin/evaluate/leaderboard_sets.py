"""The sets of the Open ASR Leaderboard, through the package `datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from moulin.arrays import Floats
from moulin.errors import AudioError, EngineError, OptionsError, first_line
from moulin.extras import install_hint
from moulin.quoting import cut, quoted

USUAL_SETS = (
    "ami_cleaned",
    "earnings22",
    "gigaspeech_cleaned",
    "librispeech:test.clean",
    "librispeech:test.other",
    "spgispeech",
    "voxpopuli_cleaned_aa",
)
_TEXTS = ("text", "sentence", "normalized_text", "transcript", "transcription")
"""Columns that may hold the reference, the first that is there."""
_LENGTHS = ("audio_length_s", "duration")


class Rows(Protocol):
    """Rows by their number, as `datasets.Dataset` has them: `audio` with `bytes` (or `path`) and a text."""

    @property
    def column_names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class SetName:
    """A set: `config` of a data set, and its split."""

    config: str
    split: str = "test"

    def __str__(self) -> str:
        return self.config if self.split == "test" else f"{self.config} {self.split}"


def parse_sets(text: str | None) -> list[SetName]:
    """CONFIG or CONFIG:SPLIT, separated by commas; None for the usual ones. Raises OptionsError."""
    found = []
    for part in (",".join(USUAL_SETS) if text is None else text).split(","):
        config, colon, split = part.strip().partition(":")
        if not config or (colon and not split):
            raise OptionsError(
                f"Expected names of sets separated by commas for --sets, got {cut(text or '', 200)!r}",
                hint=f"CONFIG or CONFIG:SPLIT, for example {','.join(USUAL_SETS[2:5])}",
            )
        found.append(SetName(config, split or "test"))
    return found


def load_rows(dataset: str, name: SetName) -> Rows:
    """The rows of a set: from the Hugging Face hub, or from a folder in the same form. Audio is left as it is encoded.

    Raises EngineError without the package, and OptionsError where the set cannot be read.
    """
    try:
        from datasets import Audio, load_dataset
    except ModuleNotFoundError as error:
        raise EngineError(
            "The leaderboard's sets need the package datasets, which is not installed",
            hint=install_hint("leaderboard"),
        ) from error
    source = str(Path(dataset).resolve()) if Path(dataset).is_dir() else dataset
    try:
        rows = load_dataset(source, name.config, split=name.split)
        rows = rows.cast_column("audio", Audio(decode=False))
    except Exception as error:  # of many libraries: the hub's, pyarrow's, datasets' own
        raise OptionsError(
            f"The set {name} of {dataset} cannot be read: {cut(first_line(error), 300)}",
            hint="name its configuration and split as the data set does (--sets), and set HF_TOKEN where it wants one",
        ) from error
    check_columns(rows, name)
    return rows  # type: ignore[no-any-return]


def check_columns(rows: Rows, name: SetName) -> None:
    """Raises OptionsError where a column is missing."""
    if "audio" not in rows.column_names or not set(_TEXTS) & set(rows.column_names):
        raise OptionsError(
            f"Expected the set {name} to have the columns audio and text, got {', '.join(rows.column_names)}"
        )


def text_of(row: Mapping[str, Any]) -> str:
    """The reference. Raises OptionsError where it is no text."""
    column = next(name for name in _TEXTS if name in row)
    if not isinstance(row[column], str):
        raise OptionsError(f"Expected a text in the column {column}, got {quoted(row[column])}")
    return str(row[column])


def waveform_of(row: Mapping[str, Any]) -> Floats:
    """The audio, float32 [n], 16 kHz, mono. Raises AudioError."""
    from moulin.audio.decode import read_audio

    audio = row["audio"]
    content, path = audio.get("bytes"), audio.get("path")
    if not content and not path:
        raise AudioError("Expected audio as bytes or as a path, got neither")
    return read_audio(content or Path(path), name=path or "audio")


def sorted_batches(rows: Rows, kept: Sequence[int], batch_size: int) -> Iterator[list[tuple[int, Floats]]]:
    """The rows numbered `kept` with their audio, the longest first, in batches of which one is in memory.

    Lengths are those of the data set's own column, else of the decoded audio, which is then decoded twice.
    """
    column = next((name for name in _LENGTHS if name in rows.column_names), None)

    def length(number: int) -> float:
        row = rows[number]
        return float(row[column]) if column else float(len(waveform_of(row)))

    order = sorted(kept, key=length, reverse=True)
    for first in range(0, len(order), batch_size):
        numbers = order[first : first + batch_size]
        yield [(number, waveform_of(rows[number])) for number in numbers]
