"""Recordings that are cut where they are transcribed: the pieces that decoders would have made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soundfile

from moulin.arrays import Floats
from moulin.bulk import cutting
from moulin.bulk.cutting import Probabilities, cut_long, one_by_one, voice_activity
from moulin.bulk.decode import decode
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import DecodedRecording, decoded_recordings
from moulin.bulk.transcriber import Transcriber
from tests.bundles import BUNDLES
from tests.conftest import Recording

GAPS = (20_000, 3000, 90_000)


@pytest.fixture(scope="module")
def table(recordings: list[Recording], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two long recordings, one of them with two channels, windows of one, a short one and a missing one."""
    folder = tmp_path_factory.mktemp("long")
    parts: list[Floats] = []
    for number, recording in enumerate(recordings):
        parts += [recording.waveform, np.zeros(GAPS[number % 3], np.float32)]
    long = np.concatenate(parts)
    soundfile.write(folder / "long.wav", long, 16_000, "PCM_16")
    soundfile.write(
        folder / "two.wav", np.stack([long, np.roll(long, 50_000)], axis=1)[: 50 * 16_000], 16_000, "PCM_16"
    )
    soundfile.write(folder / "short.wav", recordings[0].waveform, 16_000, "PCM_16")
    rows: list[dict[str, Any]] = [
        {"id": "long", "path": "long.wav"},
        {"id": "two", "path": "two.wav", "channels": "each"},
        {"id": "early", "path": "long.wav", "offset_sec": 3.0, "window_sec": 45.0},
        {"id": "late", "path": "long.wav", "offset_sec": 60.0, "window_sec": None},
        {"id": "short", "path": "short.wav"},
        {"id": "missing", "path": "no.wav"},
    ]
    usual: dict[str, Any] = {"channels": None, "offset_sec": None, "window_sec": None}
    return pa.Table.from_pylist([{**usual, **row, "path": str(folder / str(row["path"]))} for row in rows])


def pieces(recordings: list[DecodedRecording]) -> dict[str, list[tuple[Any, ...]]]:
    return {
        one.id: [(piece.start_samples, piece.place, samples.tobytes()) for piece, samples in one.pieces]
        for one in recordings
    }


def decoded(table: Any, *, cuts: bool) -> list[DecodedRecording]:
    return [one for made in decode(table, cuts=cuts) for one in decoded_recordings(made)]


@pytest.mark.parametrize("here", [one_by_one, lambda some: voice_activity("cpu")(some)], ids=["onnx", "torch"])
def test_the_same_pieces(table: Any, here: Probabilities) -> None:
    whole = decoded(table, cuts=False)
    assert max(len(samples) for one in whole for _, samples in one.pieces) > 100 * 16_000
    assert pieces(cut_long(whole, 30.0, lambda: here)) == pieces(decoded(table, cuts=True))


def test_figures_of_the_sound_are_of_what_is_kept(table: Any) -> None:
    whole, cut = (decoded(table, cuts=cuts)[0] for cuts in (False, True))
    assert whole.duration_sec == cut.duration_sec
    assert whole.sound.level_db is not None
    assert cut.sound.level_db is not None
    assert whole.sound.level_db < cut.sound.level_db  # silence is a part of it


def test_short_recordings_need_no_network(table: Any) -> None:
    def none() -> Probabilities:
        raise AssertionError("the network was asked for")

    short = [one for one in decoded(table, cuts=False) if one.id == "short"]
    assert cut_long(short, 30.0, none) == short


def test_the_same_text(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    transcriber = Transcriber(BUNDLES / "conformer-offline")
    asked: list[str] = []
    usual: Callable[[str], Probabilities] = cutting.voice_activity

    def asking(device: str) -> Probabilities:
        asked.append(device)
        return usual(device)

    monkeypatch.setattr("moulin.bulk.transcriber.voice_activity", asking)
    heard = [
        {
            row["id"]: (row["text"], row["error"])
            for made in decode(table, cuts=cuts)
            for row in transcriber(made).to_pylist()
        }
        for cuts in (False, True)
    ]
    transcriber.close()
    assert heard[0] == heard[1]
    assert asked == ["cpu"]
