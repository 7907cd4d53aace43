"""Lhotse's cuts and recordings, read without Lhotse, which brings PyTorch: what a file and a window describe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from moulin.bulk.manifests.columns import with_places
from moulin.bulk.manifests.plain_cuts import plain_row, window_of
from moulin.bulk.pyarrow_here import pa
from moulin.bulk.schema import RECORDINGS
from moulin.errors import OptionsError
from moulin.manifests.lines import read_lines
from moulin.quoting import cut, quoted

_ROWS_AT_ONCE = 10_000

_ON_DISK = ("file", "url")


def read_lhotse(file: Path) -> Any:
    """The cuts or recordings in `file`, JSONL or a list in JSON. Raises OptionsError, for each entry that is not a part
    of one file: mixed and padded cuts, changed speed, commands, audio in archives."""
    rows = _rows(file)
    some = iter(lambda: list(islice(rows, _ROWS_AT_ONCE)), [])
    recordings = pa.Table.from_batches([pa.RecordBatch.from_pylist(each, RECORDINGS) for each in some], RECORDINGS)
    # Lhotse's paths are relative to where it was run.
    return with_places(recordings, Path(), file.parent)


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    lines = read_lines(file)
    first = next(lines, None)
    if first is None:
        return
    try:
        if first[1].startswith("["):
            text = "\n".join([first[1], *(line for _, line in lines)])
            for number, entry in enumerate(json.loads(text), start=1):
                yield _row(file, f"entry {number}", entry)
            return
        for number, line in chain([first], lines):
            yield plain_row(line) or _row(file, f"line {number}", json.loads(line))
    except (ValueError, RecursionError) as error:
        raise OptionsError(f"{file} is not JSON: {error}") from None


def _row(file: Path, where: str, entry: dict[str, Any]) -> dict[str, Any]:
    try:
        if "sources" in entry:
            return _text({"id": str(entry["id"]), **_audio(entry, None)})
        if entry["type"] not in ("MonoCut", "MultiCut"):
            raise _Unfit(f"a {entry['type']}")
        if "recording" not in entry:
            raise _Unfit("a cut with features and no recording")
        recording = entry["recording"]
        row = {"id": str(entry["id"]), "recording": str(recording["id"]), **_audio(recording, entry["channel"])}
        window = window_of(float(entry["start"]), float(entry["duration"]), float(recording["duration"]))
        return _text({**row, **window})
    except _Unfit as unfit:
        raise OptionsError(
            f"Expected a cut or recording that is a part of one file on {where} of {file}, got {unfit}",
            hint="save_audios() of Lhotse's writes cuts into files of their own",
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise OptionsError(
            f"Expected a cut or a recording of Lhotse's on {where} of {file}, got {cut(json.dumps(entry), 200)}",
            hint="other fields are read as JSONL: an object on each line",
        ) from None


def _text(row: dict[str, Any]) -> dict[str, Any]:
    """`row`. Raises UnicodeEncodeError, a ValueError, where one of its texts has half of a pair of surrogates."""
    for name in ("id", "path", "recording"):
        row.get(name, "").encode()
    return row


class _Unfit(Exception):
    """An entry that is no part of one file; str() says what it is."""


def _audio(recording: dict[str, Any], channel: int | list[int] | None) -> dict[str, Any]:
    """The path of a recording, and which of its channels (from 0, as Lhotse counts) is heard."""
    if recording.get("transforms"):
        raise _Unfit("a recording with transforms")
    wanted = channel if isinstance(channel, int) else None
    sources = [one for one in recording["sources"] if wanted is None or wanted in one["channels"]]
    if len(sources) != 1:
        raise _Unfit(f"a recording in {len(recording['sources'])} files")
    source = sources[0]
    if source["type"] not in _ON_DISK:
        raise _Unfit(f"audio of the type {quoted(source['type'])}")
    channels = source["channels"]
    if isinstance(channel, list) and sorted(channel) != sorted(channels):
        raise _Unfit(f"the channels {channel} of {channels}")
    alone = wanted is None or len(channels) == 1
    return {"path": str(source["source"]), "channels": None if alone else str(channels.index(wanted) + 1)}
