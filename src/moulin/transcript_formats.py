"""Transcripts as text, JSON and subtitles (SubRip, WebVTT)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, get_args

from moulin.transcript import Transcript, Word, place_of

Format = Literal["text", "json", "srt", "vtt"]
FORMATS: tuple[Format, ...] = get_args(Format)

# Subtitling guides limit a cue to two lines of 42 characters and 7 seconds. A pause of a second starts a new cue.
_MAX_CUE_CHARS = 84
_MAX_CUE_SEC = 7.0
_PAUSE_SEC = 1.0
_LINGER_SEC = 0.8
"""The time for which a cue stays after its last word, if nothing follows."""


def to_json(transcript: Transcript, file: str) -> str:
    """One line: file, text, words, duration_sec; warnings where there are any."""
    return json.dumps({"file": file, **transcript.to_dict()}, ensure_ascii=False)


def to_srt(transcript: Transcript) -> str:
    """A SubRip file; a channel or track stands in brackets before the text."""
    numbered = enumerate(cues(transcript), start=1)
    return "\n".join(f"{number}\n{_times(cue, ',')}\n{_labelled(cue)}\n" for number, cue in numbered)


def to_vtt(transcript: Transcript) -> str:
    """A WebVTT file; a channel or track is the cue's voice."""
    shown = (f"{_times(cue, '.')}\n{_voiced(cue)}\n" for cue in cues(transcript))
    return "\n".join(["WEBVTT\n", *shown])


SUBTITLES: dict[str, Callable[[Transcript], str]] = {"srt": to_srt, "vtt": to_vtt}


@dataclass(frozen=True, slots=True)
class Cue:
    """Words shown together, from `start_sec` to `end_sec`."""

    start_sec: float
    end_sec: float
    text: str
    words: tuple[Word, ...]

    @property
    def label(self) -> str:
        """The channel and track, where they are transcribed one by one: `channel 1`, `track 2 channel 1`."""
        places = place_of(self.words[0])
        return " ".join(f"{name} {places[name]}" for name in ("track", "channel") if name in places)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A word and its position in the transcript's text, which has the spaces between words."""

    word: Word
    begin: int
    end: int


def cues(transcript: Transcript) -> Iterator[Cue]:
    """The transcript in parts of a line or two, in order of time; a pause or another channel starts a new one."""
    groups = sorted(_groups(_placed(transcript)), key=lambda group: group[0].word.start_sec)
    for group, following in zip_longest(groups, groups[1:]):
        spoken_until = group[-1].word.end_sec
        latest = following[0].word.start_sec if following else max(transcript.duration_sec, spoken_until)
        text = transcript.text[group[0].begin : group[-1].end]
        words = tuple(placed.word for placed in group)
        # Of channels, cues may overlap.
        yield Cue(words[0].start_sec, max(min(spoken_until + _LINGER_SEC, latest), spoken_until), text, words)


def _placed(transcript: Transcript) -> Iterator[_Placed]:
    end = 0
    for word in transcript.words:
        begin = transcript.text.index(word.word, end)
        end = begin + len(word.word)
        yield _Placed(word, begin, end)


def _groups(words: Iterable[_Placed]) -> Iterator[list[_Placed]]:
    group: list[_Placed] = []
    for placed in words:
        if group and (
            placed.word.start_sec - group[-1].word.end_sec > _PAUSE_SEC
            or placed.word.end_sec - group[0].word.start_sec > _MAX_CUE_SEC
            or placed.end - group[0].begin > _MAX_CUE_CHARS
            or place_of(placed.word) != place_of(group[0].word)
        ):
            yield group
            group = []
        group.append(placed)
    if group:
        yield group


def _labelled(cue: Cue) -> str:
    return f"[{cue.label}] {cue.text}" if cue.label else cue.text


def _voiced(cue: Cue) -> str:
    return f"<v {cue.label}>{_escape(cue.text)}" if cue.label else _escape(cue.text)


def _times(cue: Cue, point: str) -> str:
    return f"{_clock(cue.start_sec, point)} --> {_clock(cue.end_sec, point)}"


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
