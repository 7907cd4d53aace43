"""Lhotse's usual entries, read in a quarter of the time: a recording in one file, or a cut of one channel of it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

_WHOLE_SEC = 0.001
"""A cut that ends so near to its recording's end is all of it."""


class _Source(msgspec.Struct):
    type: Literal["file", "url"]
    source: str
    channels: list[int]


class _Recording(msgspec.Struct):
    id: str
    sources: list[_Source]
    duration: float
    transforms: list[Any] | None = None


class _MonoCut(msgspec.Struct, tag="MonoCut"):
    id: str
    start: float
    duration: float
    channel: int
    recording: _Recording
    sources: None = None


_RECORDING, _CUT = msgspec.json.Decoder(_Recording), msgspec.json.Decoder(_MonoCut)


def plain_row(line: str) -> dict[str, Any] | None:
    """The row of the schema RECORDINGS of a line; None for all that is not usual, also where it is wrong."""
    try:
        if '"sources"' in line and '"MonoCut"' not in line:
            recording = _RECORDING.decode(line)
            return None if (path := _path(recording)) is None else {"id": recording.id, "path": path}
        cut = _CUT.decode(line)
    except (msgspec.MsgspecError, RecursionError):
        return None
    path = _path(cut.recording)
    if path is None or cut.recording.sources[0].channels != [cut.channel]:
        return None
    window = window_of(cut.start, cut.duration, cut.recording.duration)
    return {"id": cut.id, "recording": cut.recording.id, "path": path, **window}


def _path(recording: _Recording) -> str | None:
    if recording.transforms or len(recording.sources) != 1:
        return None
    return recording.sources[0].source


def window_of(start: float, duration: float, recording_sec: float) -> dict[str, float]:
    """The columns of a cut's window, all in seconds; none where it is the whole recording."""
    if start <= 0 and start + duration >= recording_sec - _WHOLE_SEC:  # NaN is no whole one
        return {}
    return {"offset_sec": start, "window_sec": duration}
