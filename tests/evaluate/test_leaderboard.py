"""The leaderboard's protocol on rows in memory."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from moulin.arrays import Floats
from moulin.errors import AudioError, EngineError, OptionsError
from moulin.evaluate.leaderboard import is_scored, measure_set
from moulin.evaluate.leaderboard_normalizer import leaderboard_normalizer
from moulin.evaluate.leaderboard_sets import (
    USUAL_SETS,
    SetName,
    check_columns,
    load_rows,
    parse_sets,
    sorted_batches,
    text_of,
    waveform_of,
)

NAME = SetName("calls", "test.clean")


class InMemory:
    """`Rows` of dictionaries that counts how often a row is read."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows, self.read = rows, 0
        self.column_names = list(rows[0])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        self.read += 1
        return self.rows[number]


def encoded(num_samples: int, rate: int = 16_000) -> bytes:
    written = io.BytesIO()
    soundfile.write(written, np.full(num_samples, 0.25), rate, format="FLAC")
    return written.getvalue()


def row(num_samples: int, text: str, **more: Any) -> dict[str, Any]:
    return {"audio": {"bytes": encoded(num_samples), "path": f"{text}.flac"}, "text": text, **more}


def heard_as(texts: Mapping[int, str], calls: list[list[int]]) -> Any:
    """A target that says the text of each length."""

    def transcribe(waveforms: Sequence[Floats]) -> list[str]:
        calls.append([len(waveform) for waveform in waveforms])
        return [texts[len(waveform)] for waveform in waveforms]

    return transcribe


TEXTS = {1600: "Mister Smith's dog.", 3200: "twenty one", 4800: "uh hello", 6400: "ok"}
ROWS = [row(samples, text) for samples, text in TEXTS.items()]


def test_the_longest_first_in_batches_after_one_that_warms_up() -> None:
    calls: list[list[int]] = []
    done: list[tuple[int, int]] = []
    heard = {**TEXTS, 3200: "21", 4800: "hello hello", 6400: "okay", 1600: "mr. smith s cat"}
    found = measure_set(
        heard_as(heard, calls),
        InMemory(ROWS),
        NAME,
        leaderboard_normalizer(),
        batch_size=3,
        on_batch=lambda so_far, of: done.append((so_far, of)),
    )
    assert calls == [[6400, 4800, 3200], [6400, 4800, 3200], [1600]]
    assert done == [(3, 4), (4, 4)]
    assert (found.name, found.recordings, found.audio_sec) == ("calls test.clean", 4, 1.0)
    # mister smith s dog, 21, hello, okay: seven words, one of them wrong and one too many.
    assert (found.wer.errors, found.wer.insertions, found.wer.substitutions, found.wer.reference) == (2, 1, 1, 7)
    assert found.rtfx > 1


def test_lengths_of_a_column_spare_the_decoding() -> None:
    with_lengths = InMemory([row(samples, text, audio_length_s=samples / 16000) for samples, text in TEXTS.items()])
    batches = list(sorted_batches(with_lengths, range(4), 2))
    assert [[number for number, _ in batch] for batch in batches] == [[3, 2], [1, 0]]
    assert [len(waveform) for batch in batches for _, waveform in batch] == [6400, 4800, 3200, 1600]


@pytest.mark.parametrize("text", ["", "  ", "uh, um", "[noise]", "ignore time segment in scoring"])
def test_references_that_are_not_scored(text: str) -> None:
    normalize = leaderboard_normalizer()
    assert not is_scored(text, normalize)
    calls: list[list[int]] = []
    rows = InMemory([row(1600, "yes"), row(8000, text)])
    found = measure_set(heard_as({1600: "yes"}, calls), rows, NAME, normalize)
    assert found.recordings == 1
    with pytest.raises(OptionsError, match=r"calls test\.clean has no recordings with a reference"):
        measure_set(heard_as({}, calls), InMemory([row(8000, text)]), NAME, normalize)


def test_other_rates_and_paths(tmp_path: Path) -> None:
    assert len(waveform_of({"audio": {"bytes": encoded(44_100, 44_100), "path": None}})) == 16_000
    (tmp_path / "a.flac").write_bytes(encoded(800))
    assert len(waveform_of({"audio": {"bytes": None, "path": str(tmp_path / "a.flac")}})) == 800


@pytest.mark.parametrize("audio", [{"bytes": b"no audio", "path": "a.flac"}, {"bytes": None, "path": None}])
def test_audio_that_cannot_be_read_ends_it(audio: dict[str, Any]) -> None:
    with pytest.raises(AudioError):
        measure_set(heard_as({}, []), InMemory([{"audio": audio, "text": "a"}]), NAME, leaderboard_normalizer())


def test_columns() -> None:
    check_columns(InMemory([{"audio": {}, "sentence": "a"}]), NAME)
    assert text_of({"sentence": "a"}) == "a"
    with pytest.raises(OptionsError, match="to have the columns audio and text, got sound, text"):
        check_columns(InMemory([{"sound": {}, "text": "a"}]), NAME)
    with pytest.raises(OptionsError, match="Expected a text in the column text, got None"):
        text_of({"text": None})


def test_names_of_sets() -> None:
    assert list(map(str, parse_sets("ami,librispeech:test.other"))) == ["ami", "librispeech test.other"]
    assert len(parse_sets(None)) == len(USUAL_SETS) == 7
    for wrong in ("", "ami,", ":test", "ami:"):
        with pytest.raises(OptionsError, match="Expected names of sets separated by commas"):
            parse_sets(wrong)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(EngineError, match="need the package datasets") as caught:
        load_rows("hf-audio/open-asr-leaderboard", NAME)
    assert "[leaderboard]" in str(caught.value.hint)
