"""A decoder and an engine for callers that wait: crashes cost the recordings that crash, and nothing else."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import moulin.bulk.local.kept_decoder as decoder_module
import moulin.bulk.local.kept_engine as engine_module
from moulin.bulk.local.kept_decoder import KeptDecoder
from moulin.bulk.local.kept_engine import KeptEngine
from moulin.bulk.local.settings import DecodingSettings
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import DECODED, RECORDINGS, TRANSCRIBED
from moulin.bulk.transcriber import Transcriber
from moulin.errors import EngineError
from tests.bundles import BUNDLES
from tests.conftest import Recording

TINY = BUNDLES / "conformer-offline"
ROOT = Path(__file__).parents[3]
SETTINGS = DecodingSettings(max_utterance_sec=30.0, table_sec=20.0)


@pytest.fixture(autouse=True)
def _from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def table(tmp_path: Path, recordings: list[Recording]) -> Any:
    """A dozen recordings, one of which crashes and one of which poisons."""
    paths = [str(recordings[number].file) for number in range(12)]
    for number, name in ((3, "crash.flac"), (7, "poison.flac")):
        shutil.copy(paths[number], tmp_path / name)
        paths[number] = str(tmp_path / name)
    return pa.Table.from_pylist([{"id": str(n), "path": path} for n, path in enumerate(paths)], RECORDINGS)


@pytest.fixture
def decoder() -> Iterator[KeptDecoder]:
    kept = KeptDecoder(SETTINGS)
    yield kept
    kept.close()


@pytest.fixture
def engine() -> Iterator[KeptEngine]:
    kept = KeptEngine(Transcriber(TINY))
    yield kept
    kept.close()


def test_a_recording_that_crashes_its_decoder_has_an_error(
    table: Any, decoder: KeptDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "DECODER", "tests.bulk.local.crashing_decoder")
    rows = [row for decoded in decoder(table) for row in decoded.select(["id", "error"]).to_pylist()]
    assert sorted(int(row["id"]) for row in rows) == list(range(12))
    crashed = f"{table.column('path')[3]} cannot be decoded: the decoder crashed on it (SIGSEGV)"
    assert {row["id"]: row["error"] for row in rows if row["error"]} == {"3": crashed}


def test_tables_come_as_they_are_asked_for_and_the_process_is_used_again(table: Any, decoder: KeptDecoder) -> None:
    tables = decoder(table)
    first = next(tables)
    assert first.schema == DECODED
    assert 0 < first.num_rows < 12
    del tables  # nobody wants the rest
    assert sum(decoded.num_rows for decoded in decoder(table)) == 12
    child = decoder._child
    assert child is not None
    assert sum(decoded.num_rows for decoded in decoder(table)) == 12
    assert decoder._child is child


def test_a_decoder_that_cannot_start(table: Any, decoder: KeptDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_module, "DECODER", "moulin.no_such_module")
    with pytest.raises(EngineError, match="Processes end again and again"):
        list(decoder(table))


def test_a_recording_that_ends_its_engine_has_an_error(
    table: Any, decoder: KeptDecoder, engine: KeptEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "ENGINE", "tests.bulk.local.crashing_engine")
    decoded = pa.concat_tables(list(decoder(table)))
    heard = engine(decoded)
    assert heard.schema == TRANSCRIBED
    assert heard.column("id").to_pylist() == decoded.column("id").to_pylist()
    ended = f"The engine ended on {table.column('path')[7]} (exit status 3)"
    assert {row["id"]: row["error"] for row in heard.to_pylist() if row["error"]} == {"7": ended}


def test_an_engine_that_is_killed_is_started_again(table: Any, decoder: KeptDecoder, engine: KeptEngine) -> None:
    decoded = next(decoder(table))
    before = engine(decoded)
    assert engine._child is not None
    os.kill(engine._child.process_id, signal.SIGKILL)
    assert engine(decoded).select(["id", "text"]) == before.select(["id", "text"])


def test_a_model_that_cannot_be_used(tmp_path: Path, decoder: KeptDecoder, table: Any) -> None:
    kept = KeptEngine(Transcriber(tmp_path / "none"))
    try:
        with pytest.raises(EngineError, match="There is no model at"):
            kept(next(decoder(table)))
    finally:
        kept.close()
