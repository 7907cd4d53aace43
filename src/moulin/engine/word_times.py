"""Where words begin and end, from the frames that emitted their tokens and the loudness of the audio.

A transducer emits a token when it is certain of it, mostly within the first half of its sound, and then blanks until it
is certain of the next. So a word ends somewhere between its last token and the first of the next word: at the first
pause of `PAUSE` frames that is much quieter than the word, if there is one. It begins at its first token, or before it
where its sound follows a silence. Without such evidence (noise as loud as the speech, no waveform) the time of the
tokens stays, and a word lasts as long as most do.

Frames are the encoder's, of 40 ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from moulin.audio.loudness import STEPS_PER_DB

PAUSE = 4
"""Quiet frames that end a word. The closure before the T of EIGHT is shorter."""
SILENCE = 2
"""Quiet frames that precede the beginning of a word."""
QUIET = 20 * STEPS_PER_DB
"""A frame so much below the loudest of a word is quiet."""
SHARE = 0.3
"""So is a frame within this share of the way from the quietest frame to the loudest, for speech in noise."""
CONTRAST = 10 * STEPS_PER_DB
"""Where the quietest frame is closer to the loudest, loudness says nothing."""
LOUDEST = 6
"""Frames behind a token within which its word is loudest."""
REACH = 25
"""Frames behind its last token within which a word ends."""
USUAL = 7
"""The frames from a word's last token to its end, where nothing else is known: the median of isolated digits."""
REACH_BACK = 12
"""Frames before its first token within which a word begins."""

# bytes.translate and bytes.find look at a hundred frames in the time of one comparison of Python's.
_AT_MOST = [bytes(int(level <= most) for level in range(256)) for most in range(256)]

Span = tuple[int, int]
"""The first frame, and the frame behind the last."""


@dataclass(frozen=True, slots=True)
class Sound:
    """What is known of the audio around words: `loudness` of the frames from `first_frame` on.

    Without levels nothing is known. `is_whole`: the audio ends with these frames, and silence follows; else more will
    come. Words begin at frame `not_before` at the earliest.
    """

    levels: bytes = b""
    first_frame: int = 0
    is_whole: bool = True
    not_before: int = 0


def word_spans(emitted: Sequence[Span], sound: Sound) -> list[Span]:
    """The frames that each word spans, in order and without overlap.

    `emitted` are the frames at which the first and the last token of each word were emitted. Words of one token share
    its span.
    """
    groups = [(first, [last for _, last in group]) for first, group in groupby(emitted, key=lambda span: span[0])]
    spans: list[Span] = []
    before = sound.not_before
    for number, (first, lasts) in enumerate(groups):
        following = groups[number + 1][0] if number + 1 < len(groups) else None
        end = _end(sound, first, lasts[-1], following)
        begin = max(before, _begin(sound, first, end, before))
        before = end = max(end, begin)
        spans += [(begin, end)] if len(lasts) == 1 else divided(begin, end, len(lasts))
    return spans


def divided(begin: int, end: int, count: int) -> Iterator[Span]:
    """The frames from `begin` to before `end` in `count` spans of about the same length."""
    for number in range(count):
        yield begin + (end - begin) * number // count, begin + (end - begin) * (number + 1) // count


def _end(sound: Sound, first: int, last: int, following: int | None) -> int:
    """The frame behind the end of a word; at most `following`, at which the next one is emitted."""
    known = sound.first_frame + len(sound.levels)
    usual = last + USUAL
    if following is not None:
        usual = min(usual, following)
    elif sound.levels and not sound.is_whole:
        usual = max(last + 1, min(usual, known))
    stop = min(known, last + REACH, known if following is None else following)
    around = _levels(sound, last, stop)
    threshold = _threshold(_levels(sound, first - SILENCE, min(stop, last + LOUDEST)), around)
    if threshold is None:
        return usual
    quiet = around.translate(_AT_MOST[threshold])
    if stop == following or (stop == known and sound.is_whole):
        quiet += b"\1" * PAUSE
    pause = quiet.find(b"\1" * PAUSE)
    if pause < 0:
        return usual
    end = max(last + pause, last + 1)
    return end if following is None else min(end, following)


def _begin(sound: Sound, first: int, end: int, before: int) -> int:
    """The first frame of a word whose first token was emitted at `first`, not earlier than `before`."""
    start = max(before, first - REACH_BACK, sound.first_frame)
    around = _levels(sound, start, first + 1)
    threshold = _threshold(_levels(sound, start, min(end, first + LOUDEST)), around)
    if threshold is None:
        return first
    silence = around.translate(_AT_MOST[threshold]).rfind(b"\1" * SILENCE)
    return first if silence < 0 else min(first, start + silence + SILENCE)


def _levels(sound: Sound, begin: int, end: int) -> bytes:
    return sound.levels[max(0, begin - sound.first_frame) : max(0, end - sound.first_frame)]


def _threshold(word: bytes, around: bytes) -> int | None:
    """The level up to which frames are quiet, for the levels of a `word` and those `around` its end or beginning; None
    where they are too much alike."""
    if not word or not around:
        return None
    loudest, quietest = max(word), min(around)
    if loudest - quietest < CONTRAST:
        return None
    return max(loudest - QUIET, quietest + int(SHARE * (loudest - quietest)))
