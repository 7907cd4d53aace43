"""The transcript of a recording, joined from those of its pieces."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from moulin.long_audio.cutter import Piece
from moulin.spacing import join_texts
from moulin.transcript import Transcript, Word


@dataclass(slots=True)
class JoinedTranscript:
    """A transcript that grows by one piece at a time, in their order."""

    text: str = ""
    words: list[Word] = field(default_factory=list)

    def add(self, piece: Piece, heard: Transcript) -> str:
        """Append `heard`, whose times count from the beginning of `piece`; returns the text added."""
        before = self.text
        self.text = join_texts(before, heard.text)
        self.words += (_moved(word, piece.start_sec) for word in heard.words)
        return self.text[len(before) :]

    def transcript(self, duration_sec: float) -> Transcript:
        """The transcript of the whole recording, `duration_sec` long."""
        return Transcript(self.text, tuple(self.words), round(duration_sec, 3))


def _moved(word: Word, by_sec: float) -> Word:
    return replace(word, start_sec=round(word.start_sec + by_sec, 3), end_sec=round(word.end_sec + by_sec, 3))
