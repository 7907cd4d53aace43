"""The words of a transcript as cues of subtitles: two lines, broken where the speaker pauses and the sentence allows.

The limits are those that subtitling guides agree on: 42 columns a line, two lines, at most 7 s, 17 columns a second to
read. A Chinese or Japanese character takes two columns. Where to break is the cheapest choice over all words between
two long pauses (`_cost`), so that no word is left over for a cue of its own.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise, zip_longest
from math import inf

from moulin.spacing import is_cjk
from moulin.transcript import Transcript, Word, place_of

LINE_COLUMNS = 42
_MAX_CUE_SEC = 7.0
_MIN_CUE_SEC = 0.8
_COLUMNS_PER_SEC = 17.0
"""A cue stays until it can be read at this speed, if nothing follows."""
_MOST_COLUMNS_PER_SEC = 20.0
"""Cues that must be read faster than this are avoided."""
_PAUSE_SEC = 1.0
"""A longer pause starts a new cue, unless that would leave a single word between two."""
_LONG_PAUSE_SEC = 2.0
"""A longer pause starts a new cue in any case."""
_LINGER_SEC = 0.8
"""The time for which a cue stays after its last word, if nothing follows."""
_SHORT_COLUMNS = 12

_SENTENCE_ENDS = tuple(".!?…。！？")
_CLAUSE_ENDS = tuple(",;:，；：、")


@dataclass(frozen=True, slots=True)
class Cue:
    """Words shown together, from `start_sec` to `end_sec`; `lines` is `text` as it is shown."""

    start_sec: float
    end_sec: float
    text: str
    words: tuple[Word, ...]
    lines: tuple[str, ...]

    @property
    def label(self) -> str:
        """The channel and track, where they are transcribed one by one: `channel 1`, `track 2 channel 1`."""
        return _label(self.words[0])


def cues(transcript: Transcript, *, beside_label: int | None = None) -> Iterator[Cue]:
    """The transcript in cues of a line or two, in order and without overlap but that of channels.

    Lines have room for the longest label and `beside_label` more columns; None: the label is not shown.
    """
    labels = {label for word in transcript.words if (label := _label(word))} if beside_label is not None else set()
    taken = max(map(len, labels)) + (beside_label or 0) if labels else 0
    layout = _Layout(transcript, LINE_COLUMNS - taken)
    groups = [group for span in layout.between_pauses() for group in _divided(layout, *span)]
    groups.sort(key=lambda group: transcript.words[group[0]].start_sec)
    for (begin, end), following in zip_longest(groups, groups[1:]):
        words = transcript.words[begin:end]
        start_sec, spoken_until = words[0].start_sec, words[-1].end_sec
        latest = transcript.words[following[0]].start_sec if following else max(transcript.duration_sec, spoken_until)
        read_by = start_sec + layout.columns(begin, end) / _COLUMNS_PER_SEC
        end_sec = max(min(max(spoken_until + _LINGER_SEC, read_by), latest), spoken_until)
        lines = tuple(layout.text(*line) for line in _lines(layout, begin, end))
        yield Cue(start_sec, round(end_sec, 3), layout.text(begin, end), words, lines)


def _label(word: Word) -> str:
    places = place_of(word)
    return " ".join(f"{name} {places[name]}" for name in ("track", "channel") if name in places)


class _Layout:
    """The words of a transcript and their places in its text, which has the spaces between them."""

    def __init__(self, transcript: Transcript, line_columns: int) -> None:
        self.words = transcript.words
        self.line_columns = line_columns
        self._text = transcript.text
        self._begins: list[int] = []
        self._ends: list[int] = []
        at = 0
        for word in transcript.words:
            begin = transcript.text.index(word.word, at)
            at = begin + len(word.word)
            self._begins.append(begin)
            self._ends.append(at)
        columns = [0, *accumulate(map(_columns, transcript.text))]
        self._begin_columns = [columns[begin] for begin in self._begins]
        self._end_columns = [columns[end] for end in self._ends]

    def text(self, begin: int, end: int) -> str:
        """The text of the words from `begin` to before `end`."""
        return self._text[self._begins[begin] : self._ends[end - 1]]

    def columns(self, begin: int, end: int) -> int:
        """The columns that the words from `begin` to before `end` take in one line."""
        return self._end_columns[end - 1] - self._begin_columns[begin]

    def line_end(self, begin: int) -> int:
        """The first word that no longer fits into a line with word `begin`, which fits in any case."""
        if begin == len(self.words):
            return begin
        return max(begin + 1, bisect_right(self._end_columns, self._begin_columns[begin] + self.line_columns))

    def fits_a_line(self, begin: int, end: int) -> bool:
        return end <= self.line_end(begin) and (self.columns(begin, end) <= self.line_columns or end == begin + 1)

    def cue_end(self, begin: int) -> int:
        """The first word that no longer fits into a cue with word `begin`: into two lines and 7 s."""
        first = self.line_end(begin)
        if self.columns(begin, first) > self.line_columns:  # a word longer than a line is alone
            return first
        second = self.line_end(first)
        end = first if second > first and self.columns(first, second) > self.line_columns else second
        until = self.words[begin].start_sec + _MAX_CUE_SEC
        while end > begin + 1 and self.words[end - 1].end_sec > until:
            end -= 1
        return end

    def splits_a_word(self, at: int) -> bool:
        """Whether a break before word `at` is neither at a space nor beside a character of a script without spaces."""
        before, after = self._ends[at - 1], self._begins[at]
        return before == after and not (is_cjk(self._text[before - 1]) or is_cjk(self._text[after]))

    def break_value(self, at: int) -> float:
        """How good a break before word `at` is, 0 to 1, for the sentence; negative within a word."""
        if self.splits_a_word(at):
            return -4.0
        before = self._text[: self._begins[at]].rstrip() if at < len(self.words) else self._text
        return 1.0 if before.endswith(_SENTENCE_ENDS) else 0.5 if before.endswith(_CLAUSE_ENDS) else 0.0

    def between_pauses(self) -> Iterator[tuple[int, int]]:
        """The words between two pauses, or changes of the channel, that start a new cue: the first, and the one behind
        the last."""
        pauses = [following.start_sec - word.end_sec for word, following in pairwise(self.words)]
        around = [inf, *pauses, inf]  # pause i is before word i
        begin = 0
        for number, pause in enumerate(pauses, start=1):
            leaves_one_word = around[number - 1] > _PAUSE_SEC or around[number + 1] > _PAUSE_SEC
            elsewhere = place_of(self.words[number]) != place_of(self.words[number - 1])
            if elsewhere or pause > (_LONG_PAUSE_SEC if leaves_one_word else _PAUSE_SEC):
                yield begin, number
                begin = number
        if self.words:
            yield begin, len(self.words)


def _divided(layout: _Layout, begin: int, end: int) -> list[tuple[int, int]]:
    """The cheapest division of words into cues; of equally cheap ones that with the longest first cues."""
    cheapest = [0.0] * (end - begin + 1)
    next_begin = [end] * (end - begin)
    for first in range(end - 1, begin - 1, -1):
        best = None
        for last in range(min(layout.cue_end(first), end), first, -1):
            cost = cheapest[last - begin] + _cost(layout, first, last, (begin, end))
            if best is None or cost < best - 1e-9:
                best, next_begin[first - begin] = cost, last
        assert best is not None
        cheapest[first - begin] = best
    found, at = [], begin
    while at < end:
        found.append((at, next_begin[at - begin]))
        at = next_begin[at - begin]
    return found


def _cost(layout: _Layout, begin: int, end: int, group: tuple[int, int]) -> float:
    """The cost of a cue of words from `begin` to before `end`, of a `group` between two long pauses."""
    columns = layout.columns(begin, end)
    cost = 1 + (1 - min(columns / (2 * layout.line_columns), 1)) ** 2
    words, is_last = layout.words, end == group[1]
    seconds = (words[end - 1].end_sec + _LINGER_SEC if is_last else words[end].start_sec) - words[begin].start_sec
    if seconds < _MIN_CUE_SEC:
        cost += 3 * (1 - seconds / _MIN_CUE_SEC)
    cost += min(max(columns / max(seconds, 0.1) / _MOST_COLUMNS_PER_SEC - 1, 0), 2)
    if (begin, end) != group:
        if end == begin + 1:
            cost += 4
        elif columns < _SHORT_COLUMNS:
            cost += 2 * (1 - columns / _SHORT_COLUMNS)
    if not is_last:
        pause_sec = min(words[end].start_sec - words[end - 1].end_sec, _LONG_PAUSE_SEC)
        cost -= 0.6 * pause_sec + 0.6 * layout.break_value(end)
    return cost


def _lines(layout: _Layout, begin: int, end: int) -> list[tuple[int, int]]:
    """A cue as one line, or as two about equally long, the second rather the longer one."""
    if layout.fits_a_line(begin, end):
        return [(begin, end)]

    def unevenness(at: int) -> float:
        first, second = layout.columns(begin, at), layout.columns(at, end)
        top_heavy = 2 if first > second else 0
        return abs(first - second) + top_heavy - 6 * layout.break_value(at)

    breaks = [at for at in range(begin + 1, end) if layout.fits_a_line(begin, at) and layout.fits_a_line(at, end)]
    at = min(breaks, key=unevenness)
    return [(begin, at), (at, end)]


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
