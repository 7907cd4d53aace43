"""The transcript of a recording, joined from those of its pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import reduce

from moulin.long_audio.cutter import Piece, Place
from moulin.spacing import join_texts
from moulin.transcript import Part, PlacedWord, Transcript, Word

_TURN_PAUSE_SEC = 0.8
"""A pause in one channel after which the words of another one may come first."""


@dataclass(slots=True)
class JoinedTranscript:
    """A transcript that grows by one piece at a time, in their order.

    The words of channels or tracks that are heard one by one are put in order of time, turn by turn, when it is done.
    The alternatives of a piece are its own, not the recording's, unless it is the only piece.
    """

    text: str = ""
    words: list[Word] = field(default_factory=list)
    added: list[Word] = field(default_factory=list)
    """The words of the last piece."""
    _turns: list[tuple[float, str, list[Word]]] = field(default_factory=list)
    _parts: list[Part] = field(default_factory=list)
    _pieces: int = 0

    def add(self, piece: Piece, heard: Transcript) -> str:
        """Append `heard`, whose times count from the beginning of `piece`; returns the text added."""
        before = self.text
        self.text = join_texts(before, heard.text)
        words = [_moved(word, piece.start_sec) for word in heard.words]
        self._pieces += 1
        self._parts += (_part(part, piece) for part in heard.parts or _only_part(heard))
        self.added = words if piece.place is None else [_placed(word, piece.place) for word in words]
        if piece.place is None:
            self.words += words
        elif words:
            self._turns += ((turn[0].start_sec, _text(turn), turn) for turn in _turns(self.added))
        elif heard.text:
            self._turns.append((piece.start_sec, heard.text, []))
        return self.text[len(before) :]

    def transcript(self, duration_sec: float, warnings: Iterable[str] = ()) -> Transcript:
        """The transcript of the whole recording, `duration_sec` long."""
        text, words = self.text, self.words
        if self._turns:
            turns = sorted(self._turns, key=lambda turn: turn[0])
            text = reduce(join_texts, (text for _, text, _ in turns), "")
            words = [word for _, _, spoken in turns for word in spoken]
        parts = tuple(sorted(self._parts, key=lambda part: part.start_sec))
        alternatives = parts[0].alternatives if len(parts) == self._pieces == 1 else ()
        return Transcript(
            text,
            tuple(words),
            round(duration_sec, 3),
            tuple(warnings),
            alternatives,
            () if alternatives else parts,
        )


def _only_part(heard: Transcript) -> tuple[Part, ...]:
    return (Part(heard.alternatives),) if heard.alternatives else ()


def _part(part: Part, piece: Piece) -> Part:
    return Part(tuple(replace(one, words=tuple(_located(one.words, piece))) for one in part.alternatives))


def _located(words: Iterable[Word], piece: Piece) -> Iterator[Word]:
    for word in words:
        moved = _moved(word, piece.start_sec)
        yield moved if piece.place is None else _placed(moved, piece.place)


def _turns(words: list[Word]) -> Iterator[list[Word]]:
    turn: list[Word] = []
    for word in words:
        if turn and word.start_sec - turn[-1].end_sec > _TURN_PAUSE_SEC:
            yield turn
            turn = []
        turn.append(word)
    yield turn


def _text(words: list[Word]) -> str:
    return reduce(join_texts, (word.word for word in words), "")


def _moved(word: Word, by_sec: float) -> Word:
    if not by_sec:
        return word
    return replace(word, start_sec=round(word.start_sec + by_sec, 3), end_sec=round(word.end_sec + by_sec, 3))


def _placed(word: Word, place: Place) -> Word:
    return PlacedWord(word.word, word.start_sec, word.end_sec, word.confidence, place.channel, place.track)
