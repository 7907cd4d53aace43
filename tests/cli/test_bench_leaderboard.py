"""`moulin bench leaderboard` as a person runs it, on a small data set in the leaderboard's form."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from moulin.demo.files import DEMO_MODEL
from moulin.evaluate import leaderboard_sets
from moulin.evaluate.leaderboard_normalizer import leaderboard_normalizer
from moulin.evaluate.leaderboard_sets import SetName
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.wer import count_word_errors
from moulin.models.open_recognizer import open_recognizer

from .command import Finished, moulin_here

SETS = {"ami_cleaned": ["test"], "librispeech": ["test.clean", "test.other"]}


def rows_of(split: str) -> list[dict[str, Any]]:
    """Some recordings as FLAC with their text; the last has a reference that is not scored."""
    clips = demo_clips()[: 3 if split == "test.clean" else 2]
    rows = [
        {"id": clip.id, "audio": {"bytes": clip.audio.read_bytes(), "path": None}, "text": clip.text} for clip in clips
    ]
    return [*rows, {**rows[0], "id": "ignored", "text": "ignore time segment in scoring"}]


def run(dataset: object, *more: object) -> Finished:
    sets = ",".join(f"{config}:{split}" for config, splits in SETS.items() for split in splits)
    return moulin_here("bench", "leaderboard", "--dataset", dataset, "--sets", sets, "--batch-size", 2, *more)


class _Rows(list[Mapping[str, Any]]):
    column_names: Sequence[str] = ("id", "audio", "text")


def test_figures_and_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def rows(dataset: str, name: SetName) -> _Rows:
        asked.append((dataset, str(name)))
        return _Rows(rows_of(name.split))

    monkeypatch.setattr(leaderboard_sets, "load_rows", rows)
    outputs = [tmp_path / f"result.{suffix}" for suffix in ("json", "html", "md")]
    done = run("somewhere/sets", *(part for output in outputs for part in ("--to", output))).expect(0)
    assert asked == [
        ("somewhere/sets", name) for name in ("ami_cleaned", "librispeech test.clean", "librispeech test.other")
    ]
    check(done)
    report = json.loads(outputs[0].read_text())
    assert report["kind"] == "leaderboard"
    assert [it["recordings"] for it in report["sets"]] == [2, 3, 2]
    assert report["batch_size"] == 2
    for output in outputs[1:]:
        assert "librispeech test.clean" in output.read_text()
        assert "18,100" in output.read_text()


def check(done: Finished) -> None:
    assert "fast-gpu-asr, Zipformer 290M transducer: RTFx 18,100, WER 5.26%" in done.out
    assert "whisper-normalizer with the Open ASR Leaderboard's rules" in done.out
    normalize = leaderboard_normalizer()
    with open_recognizer(DEMO_MODEL) as recognizer:
        for name, count in (("ami_cleaned", 2), ("librispeech test.clean", 3), ("librispeech test.other", 2)):
            clips = demo_clips()[:count]
            heard = [recognizer.transcribe([clip.waveform()])[0].text for clip in clips]
            pairs = zip(clips, heard, strict=True)
            errors = sum(count_word_errors(clip.text, text, normalize=normalize).errors for clip, text in pairs)
            (line,) = [line for line in done.out.splitlines() if line.startswith(f"{name} ")]
            assert f"({errors} errors in " in line
            assert f"{count} recordings)" in line


@pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None,
    reason="needs datasets, whose pyarrow wants NumPy 2 where the Triton of these tests wants NumPy 1",
)
@pytest.mark.filterwarnings("ignore")
def test_a_data_set_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parquet files with encoded audio; README.md names configurations and splits, as in the hub's data set."""
    import pyarrow
    import pyarrow.parquet

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder, described = tmp_path / "sets", ["---", "configs:"]
    for config, splits in SETS.items():
        described += [f"- config_name: {config}", "  data_files:"]
        for split in splits:
            file = f"{config}/{split}-00000-of-00001.parquet"
            described += [f"  - split: {split}", f"    path: {file}"]
            (folder / config).mkdir(parents=True, exist_ok=True)
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows_of(split)), folder / file)
    (folder / "README.md").write_text("\n".join([*described, "---", ""]))
    check(run(folder).expect(0))
    wrong = moulin_here("bench", "leaderboard", "--dataset", folder, "--sets", "tedlium").expect(1)
    assert "The set tedlium of " in wrong.err
    assert "hint: " in wrong.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sets", "ami,"], "Expected names of sets separated by commas for --sets"),
        (["--target", "whisper"], "There is no target 'whisper'"),
        (["--normalizer-from", "."], "Expected a clone of huggingface/open_asr_leaderboard"),
        (["--batch-size", "0"], "batch-size"),
    ],
)
def test_wrong_options(arguments: list[str], said: str) -> None:
    done = moulin_here("bench", "leaderboard", *arguments)
    assert done.status
    assert said in done.err
