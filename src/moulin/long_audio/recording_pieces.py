"""The pieces of a recording, of each channel or track that is transcribed by itself, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from moulin.arrays import Floats
from moulin.audio.selection import Selection
from moulin.audio.timeline import Skip
from moulin.long_audio.cutter import Piece, Place
from moulin.long_audio.pieces import Pieces


class Blocks(Protocol):
    """A `Recording`, or what is put around one."""

    def __iter__(self) -> Iterator[Floats | Skip]: ...
    def __next__(self) -> Floats | Skip: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...


OpenRecordings = Callable[[], Sequence[tuple[Selection, Blocks]]]
"""Makes the recordings that a selection stands for (`opened_recordings`); called with the first piece."""


class RecordingPieces(Iterator[Piece]):
    """Pieces with their place, where several are transcribed by themselves. For `JoinedTranscript`.

    `next` raises AudioError and EngineError, as of `Pieces`.
    """

    def __init__(self, recordings: OpenRecordings, selection: Selection, *, max_utterance_sec: float) -> None:
        self._progress = _Progress()
        # A generator without a reference to self, so that dropping the last reference closes the file.
        self._pieces = _pieces(recordings, selection, max_utterance_sec, self._progress)

    def __next__(self) -> Piece:
        return next(self._pieces)

    @property
    def decoded_sec(self) -> float:
        """Seconds decoded so far, of the longest channel or track; the duration when there are no more pieces."""
        return max((pieces.decoded_sec for pieces in self._progress.pieces), default=0.0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The recordings' warnings, each once; complete when there are no more pieces."""
        said = (warning for recording in self._progress.recordings for warning in recording.warnings)
        return tuple(dict.fromkeys(said))


class _Progress:
    def __init__(self) -> None:
        self.pieces: list[Pieces] = []
        self.recordings: list[Blocks] = []


def _pieces(
    open_recordings: OpenRecordings, selection: Selection, max_utterance_sec: float, progress: _Progress
) -> Iterator[Piece]:
    for single, recording in open_recordings():
        pieces = Pieces(recording, max_utterance_sec=max_utterance_sec)
        progress.recordings.append(recording)
        progress.pieces.append(pieces)
        place = place_of(selection, single)
        for piece in pieces:
            yield piece if place is None else replace(piece, place=place)


def place_of(selection: Selection, single: Selection) -> Place | None:
    """The place of a single recording's pieces; None where `selection` makes one transcript of one recording."""
    if selection.is_single:
        return None
    channel = single.channel_number if selection.channels == "each" else None
    return Place(channel, single.track_number if selection.track == "all" else None)
