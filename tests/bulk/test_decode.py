"""Tables of recordings to tables of audio: what is decoded, and that no file raises."""

from __future__ import annotations

import http.server
import os
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from moulin.audio.recording import opened_recordings
from moulin.audio.selection import MIX, Selection
from moulin.bulk import source
from moulin.bulk.decode import decode
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import RECORDINGS, DecodedRecording, decoded_recordings
from moulin.bulk.source import is_address
from moulin.long_audio.recording_pieces import RecordingPieces
from tests.conftest import Recording


def decoded(rows: list[dict[str, Any]], **options: Any) -> dict[str, DecodedRecording]:
    tables = decode(pa.Table.from_pylist(rows, RECORDINGS), **options)
    return {one.id: one for table in tables for one in decoded_recordings(table)}


def audio(one: DecodedRecording) -> Any:
    return np.concatenate([samples for _, samples in one.pieces])


@pytest.fixture
def stereo(tmp_path: Path, recordings: list[Recording]) -> Path:
    file = tmp_path / "stereo.wav"
    left, right = recordings[0].waveform, recordings[1].waveform
    count = min(len(left), len(right))
    soundfile.write(file, np.stack([left[:count], right[:count]], axis=1), 16000, "PCM_16")
    return file


def test_pieces_are_those_of_moulin_transcribe(tmp_path: Path, recordings: list[Recording]) -> None:
    file = tmp_path / "long.wav"
    gap = np.zeros(20_000, np.float32)
    parts = [part for recording in recordings for part in (recording.waveform, gap)]
    soundfile.write(file, np.concatenate(parts), 16000, "PCM_16")
    (one,) = decoded([{"id": "long", "path": str(file)}], max_utterance_sec=10).values()
    pieces = RecordingPieces(partial(opened_recordings, file), MIX, max_utterance_sec=10)
    expected = list(pieces)
    assert len(expected) > 10
    assert [piece.start_samples for piece, _ in one.pieces] == [piece.start_samples for piece in expected]
    for (_, samples), piece in zip(one.pieces, expected, strict=True):
        assert np.array_equal(samples / np.float32(32768), piece.waveform)
    assert one.duration_sec == pieces.decoded_sec


def test_channels_are_heard_each(stereo: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "each", "path": str(stereo), "channels": "each"},
        {"id": "2", "path": str(stereo), "channels": "2"},
        {"id": "part", "path": str(stereo), "channels": "each", "offset_sec": 1.0, "window_sec": 2.0},
    ]
    heard = decoded(rows)
    assert [piece.place.channel for piece, _ in heard["each"].pieces if piece.place] == [1, 2]
    assert np.array_equal(heard["each"].pieces[1][1], audio(heard["2"]))
    left, right = heard["part"].pieces
    assert np.array_equal(right[1], audio(heard["2"])[16000:48000])
    assert left[0].start_samples == 0


def test_windows_of_a_file_are_decoded_in_one_pass(recordings: list[Recording]) -> None:
    path = str(recordings[0].file)
    opened: list[str] = []

    def open(path: str, selection: Selection, name: str) -> Any:
        opened.append(name)
        return opened_recordings(path, selection, name=name)

    rows: list[dict[str, Any]] = [
        {"id": "b", "path": path, "offset_sec": 2.0, "window_sec": 1.0},
        {"id": "a", "path": path, "offset_sec": 0.5, "window_sec": 2.0},
        {"id": "late", "path": path, "offset_sec": 600.0, "window_sec": 2.0},
        {"id": "nan", "path": path, "offset_sec": float("nan"), "window_sec": 1.0},
        {"id": "none", "path": path, "offset_sec": 1.0, "window_sec": 0.0},
        {"id": "all", "path": path},
    ]
    heard = decoded(rows, open=open)
    assert opened == [path]
    whole = audio(heard["all"])
    assert np.array_equal(audio(heard["a"]), whole[8000:40000])
    assert np.array_equal(audio(heard["b"]), whole[32000:48000])
    assert "expected audio from 600 s on" in (heard["late"].error or "")
    for id in ("nan", "none"):
        assert "Expected a window from 0 s on" in (heard[id].error or "")


def test_no_file_raises(tmp_path: Path, recordings: list[Recording]) -> None:
    noise = tmp_path / "noise.mp3"
    noise.write_bytes(np.random.default_rng(1).bytes(5000))
    empty = tmp_path / "empty.wav"
    empty.touch()
    good = str(recordings[0].file)
    os.mkfifo(tmp_path / "pipe.wav")
    rows: list[dict[str, Any]] = [
        {"id": "pipe", "path": str(tmp_path / "pipe.wav")},
        {"id": "device", "path": "/dev/zero"},
        {"id": "missing", "path": str(tmp_path / "no.wav")},
        {"id": "folder", "path": str(tmp_path)},
        {"id": "noise", "path": str(noise)},
        {"id": "empty", "path": str(empty)},
        {"id": "channels", "path": good, "channels": "all of them"},
        {"id": "window", "path": str(empty), "offset_sec": 1.0},
        {"id": "address", "path": "nothing-knows-this://bucket/a.wav"},
        {"id": "nul", "path": "a\0b.wav"},
        {"id": "nul and window", "path": "a\0b.wav", "offset_sec": 1.0},
        {"id": "long name", "path": "x" * 10_000, "offset_sec": 1.0},
        {"id": "far", "path": good, "offset_sec": 1e305, "window_sec": 1.0},
        {"id": "endless", "path": good, "offset_sec": 1.0, "window_sec": 1e305},
        {"id": "backwards", "path": good, "offset_sec": 1.0, "window_sec": -1.0},
        {"id": "good", "path": good},
    ]
    heard = decoded(rows)
    assert {id for id, one in heard.items() if one.error} == {row["id"] for row in rows} - {"good"}
    assert heard["good"].pieces


def test_a_fault_of_ours_is_the_files_alone(recordings: list[Recording], caplog: pytest.LogCaptureFixture) -> None:
    def open(path: str, selection: Selection, name: str) -> Any:
        if "00" in name:
            raise ZeroDivisionError("of ours")
        return opened_recordings(path, selection, name=name)

    rows: list[dict[str, Any]] = [{"id": str(n), "path": str(one.file)} for n, one in enumerate(recordings[:3])]
    rows += [{"id": f"window {n}", "path": rows[0]["path"], "offset_sec": 1.0} for n in range(2)]
    heard = decoded(rows, open=open)
    for id in ("0", "window 0", "window 1"):
        assert "ZeroDivisionError: of ours" in (heard[id].error or "")
    assert [heard[id].error for id in ("1", "2")] == [None, None]
    assert "Traceback" in caplog.text


def test_tables_are_of_some_seconds(recordings: list[Recording]) -> None:
    rows = [{"id": str(n), "path": str(one.file)} for n, one in enumerate(recordings)]
    tables = list(decode(pa.Table.from_pylist(rows, RECORDINGS), table_sec=20))
    assert [id for table in tables for id in table.column("id").to_pylist()] == [row["id"] for row in rows]
    for table in tables[:-1]:
        seconds = sum(one.duration_sec for one in decoded_recordings(table))
        assert 20 <= seconds < 32


@pytest.fixture
def site(recordings: list[Recording]) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None: ...

    folder = str(recordings[0].file.parent)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.needs("fsspec")
@pytest.mark.needs("aiohttp")
def test_addresses(site: str, recordings: list[Recording]) -> None:
    file = recordings[0].file
    rows: list[dict[str, Any]] = [
        {"id": "path", "path": str(file)},
        {"id": "http", "path": f"{site}/{file.name}"},
        {"id": "window", "path": f"{site}/{file.name}", "offset_sec": 1.0, "window_sec": 1.0},
        {"id": "gone", "path": f"{site}/gone.flac"},
        {"id": "file", "path": f"file://{file.absolute()}"},
    ]
    heard = decoded(rows)
    for id in ("http", "file"):
        assert np.array_equal(audio(heard[id]), audio(heard["path"]))
    assert np.array_equal(audio(heard["window"]), audio(heard["path"])[16000:32000])
    assert (heard["gone"].error or "").startswith(f"{site}/gone.flac cannot be read: ")


@pytest.mark.needs("fsspec")
@pytest.mark.needs("aiohttp")
def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "SILENCE_SEC", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes connections, and nobody answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a.wav"
        error = decoded([{"id": "a", "path": address}])["a"].error
    assert (error or "").startswith(f"{address} cannot be read: SocketTimeoutError")


def test_a_full_disk_for_temporary_files(recordings: list[Recording], monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is named: it is often not that of the output."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: Path("/dev/full").open("wb"))  # noqa: SIM115 (`_copy` closes it)
    error = decoded([{"id": "a", "path": f"file://{recordings[0].file.absolute()}"}])["a"].error
    folder = re.escape(tempfile.gettempdir())
    assert re.search(f"cannot be read: The folder {folder} lacks room: No space left on device, .* free$", error or "")


@pytest.mark.parametrize(
    ("path", "is_one"),
    [("s3://bucket/a.wav", True), ("https://a.b/c", True), ("/a/b://c", False), ("a.wav", False), ("C://", False)],
)
def test_addresses_are_told_from_paths(path: str, is_one: bool) -> None:
    assert is_address(path) == is_one
