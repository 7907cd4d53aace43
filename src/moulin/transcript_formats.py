"""Transcripts as text, JSON and subtitles (SubRip, WebVTT)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal, get_args

from moulin.cues import Cue, cues
from moulin.transcript import Transcript

Format = Literal["text", "json", "srt", "vtt"]
FORMATS: tuple[Format, ...] = get_args(Format)
_LABEL = "[{}] "
"""A cue's label in SubRip, before its text."""


def to_json(transcript: Transcript, file: str) -> str:
    """One line: file, text, words, duration_sec; warnings where there are any."""
    return json.dumps({"file": file, **transcript.to_dict()}, ensure_ascii=False)


def to_srt(transcript: Transcript) -> str:
    """A SubRip file; a channel or track stands in brackets before the text."""
    numbered = enumerate(cues(transcript, beside_label=len(_LABEL) - 2), start=1)
    return "\n".join(f"{number}\n{_times(cue, ',')}\n{_labelled(cue)}\n" for number, cue in numbered)


def to_vtt(transcript: Transcript) -> str:
    """A WebVTT file; a channel or track is the cue's voice, and warnings are comments."""
    notes = (f"NOTE {_in_one_line(warning).replace('-->', '->')}\n" for warning in transcript.warnings)
    shown = (f"{_times(cue, '.')}\n{_voiced(cue)}\n" for cue in cues(transcript))
    return "\n".join(["WEBVTT\n", *notes, *shown])


SUBTITLES: dict[str, Callable[[Transcript], str]] = {"srt": to_srt, "vtt": to_vtt}


def _labelled(cue: Cue) -> str:
    shown = "\n".join(cue.lines)
    return _LABEL.format(cue.label) + shown if cue.label else shown


def _voiced(cue: Cue) -> str:
    shown = _escape("\n".join(cue.lines))
    return f"<v {cue.label}>{shown}" if cue.label else shown


def _times(cue: Cue, point: str) -> str:
    return f"{_clock(cue.start_sec, point)} --> {_clock(cue.end_sec, point)}"


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
