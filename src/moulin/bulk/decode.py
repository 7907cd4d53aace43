"""Decoding of a table of recordings: the first half of the seam."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from moulin.audio.decoded import described
from moulin.audio.recording import opened_recordings
from moulin.audio.selection import Selection
from moulin.bulk.schema import DecodedRows, RecordingRow, recording_rows
from moulin.bulk.source import local_file
from moulin.bulk.windows import Windows
from moulin.errors import AudioError, MoulinError
from moulin.long_audio.pieces import MAX_PIECE_SEC
from moulin.long_audio.recording_blocks import RecordingBlocks, Run
from moulin.long_audio.recording_pieces import Blocks, RecordingPieces
from moulin.quoting import quoted

logger = logging.getLogger(__name__)

TABLE_SEC = 600.0
"""Seconds of audio from which a table is full: 19 MB."""

MAX_AUDIO_SEC = 24 * 3600.0
"""The longest recording, which is in memory as a whole: 2.8 GB."""

_FOREVER_SEC = 1e9
"""What lies beyond is no time in a recording."""

Open = Callable[[str, Selection, str], Sequence[tuple[Selection, Blocks]]]
"""Opens the file at a path, for a selection, with a name for messages: its recordings, as of `opened_recordings`."""


def opened(path: str, selection: Selection, name: str) -> Sequence[tuple[Selection, Blocks]]:
    """The recordings of a file of at most MAX_AUDIO_SEC. Raises AudioError."""
    return opened_recordings(path, selection, max_duration_sec=MAX_AUDIO_SEC, name=name)


def decode(
    recordings: Any,
    *,
    max_utterance_sec: float = MAX_PIECE_SEC,
    table_sec: float = TABLE_SEC,
    cuts: bool = True,
    open: Open = opened,
) -> Iterator[Any]:
    """A table of the schema RECORDINGS to tables of the schema DECODED, each of some `table_sec` seconds of audio.

    Pieces are at most `max_utterance_sec` long, that of the model that will hear them; without `cuts` they are whole
    recordings, but for parts that are skipped, and `Transcriber` cuts them. Rows keep their order,
    but windows of the same audio that follow one another are decoded in one pass, in the order of time. Never raises
    for a file: its row has an `error`.
    """
    decoded = DecodedRows()
    rows = recording_rows(recordings)
    for _ in decode_rows(rows, decoded, max_utterance_sec=max_utterance_sec, cuts=cuts, open=open):
        if decoded.seconds >= table_sec:
            yield decoded.table()
            decoded.clear()
    if len(decoded):
        yield decoded.table()


def decode_rows(
    rows: Iterable[RecordingRow],
    decoded: DecodedRows,
    *,
    max_utterance_sec: float,
    cuts: bool = True,
    open: Open = opened,
) -> Iterator[RecordingRow]:
    """Each of `rows` when it is in `decoded`, with its audio or an error."""
    one = partial(_decode_row, decoded=decoded, max_utterance_sec=max_utterance_sec if cuts else None)
    for _, together in groupby(rows, key=lambda row: row.audio):
        alike = list(together)
        try:
            selection = alike[0].selection()
            with local_file(alike[0].path) as path:
                source = partial(open, path, selection, alike[0].path)
                if selection.is_single and not alike[0].is_whole:
                    yield from _in_one_pass(alike, selection, source, one)
                else:
                    for row in alike:
                        one(row, selection, partial(_windowed, source, row))
                        yield row
        except MoulinError as error:  # of the selection, the address or the file, before any of the rows
            for row in alike:
                decoded.fail(row, str(error))
                yield row


def _in_one_pass(
    rows: list[RecordingRow],
    selection: Selection,
    source: Callable[[], Sequence[tuple[Selection, Blocks]]],
    one: Callable[..., None],
) -> Iterator[RecordingRow]:
    """Windows in the order of time. Raises what opening the file raises."""
    wrong = [row for row in rows if not _is_window(row)]
    in_time = sorted((row for row in rows if _is_window(row)), key=lambda row: row.offset_sec)
    for row in wrong:
        one(row, selection, partial(_windowed, source, row))
        yield row
    if not in_time:
        return
    try:
        ((_, blocks),) = source()
    except MoulinError:
        raise
    except Exception as error:  # a fault of ours: the other files go on
        logger.exception("%s: decoding failed", rows[0].path)
        raise AudioError(f"{rows[0].path} cannot be decoded: {described(error)}") from error
    windows = Windows(blocks, [(row.offset_sec, row.window_sec) for row in in_time])
    for number, row in enumerate(in_time):
        one(row, selection, lambda number=number: [(selection, windows.take(number, rows[0].path))])
        yield row


def _windowed(
    source: Callable[[], Sequence[tuple[Selection, Blocks]]], row: RecordingRow
) -> list[tuple[Selection, Blocks]]:
    if row.is_whole:
        return list(source())
    if not _is_window(row):
        raise AudioError(
            f"Expected a window from 0 s on and longer than 0 s, got {quoted(row.window_sec)} s from "
            f"{quoted(row.offset_sec)} s on"
        )
    window = row.offset_sec, row.window_sec
    return [(single, Windows(blocks, [window]).take(0, row.path)) for single, blocks in source()]


def _is_window(row: RecordingRow) -> bool:
    window_sec = 1.0 if row.window_sec is None else row.window_sec
    return 0 <= row.offset_sec < _FOREVER_SEC and 0 < window_sec < _FOREVER_SEC


def _decode_row(
    row: RecordingRow,
    selection: Selection,
    recordings: Callable[[], Sequence[tuple[Selection, Blocks]]],
    *,
    decoded: DecodedRows,
    max_utterance_sec: float | None,
) -> None:
    """Add a row with its pieces; None for `max_utterance_sec` leaves them whole."""
    begun = time.perf_counter()
    try:
        audio: RecordingPieces | RecordingBlocks
        if max_utterance_sec is None:
            audio = RecordingBlocks(recordings, selection)
            _add_whole(audio, decoded)
        else:
            audio = RecordingPieces(recordings, selection, max_utterance_sec=max_utterance_sec)
            for piece in audio:
                decoded.add_piece(piece)
        decoded.end(row, audio.decoded_sec, audio.warnings, time.perf_counter() - begun)
    except MoulinError as error:
        decoded.fail(row, str(error))
    except Exception as error:  # a fault of ours: the other files go on
        logger.exception("%s: decoding failed", row.path)
        decoded.fail(row, f"{row.path} cannot be decoded: {described(error)}")


def _add_whole(blocks: RecordingBlocks, decoded: DecodedRows) -> None:
    run: Run | None = None
    for block in blocks:
        followed = run and run.followed_by(block)
        decoded.add_block(block, goes_on=followed is not None)
        run = followed or Run.of(block)
