"""Transcripts as text, JSON and subtitles (SubRip, WebVTT)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal, get_args

from moulin.cues import Cue, cues
from moulin.transcript import Transcript

Format = Literal["text", "json", "srt", "vtt"]
FORMATS: tuple[Format, ...] = get_args(Format)


def to_json(transcript: Transcript, file: str) -> str:
    """One line: file, text, words, duration_sec."""
    return json.dumps({"file": file, **transcript.to_dict()}, ensure_ascii=False)


def to_srt(transcript: Transcript) -> str:
    """A SubRip file."""
    numbered = enumerate(cues(transcript), start=1)
    shown = (f"{n}\n{_clock(c.start_sec, ',')} --> {_clock(c.end_sec, ',')}\n{_text(c)}\n" for n, c in numbered)
    return "\n".join(shown)


def to_vtt(transcript: Transcript) -> str:
    """A WebVTT file."""
    shown = (
        f"{_clock(c.start_sec, '.')} --> {_clock(c.end_sec, '.')}\n{_escape(_text(c))}\n" for c in cues(transcript)
    )
    return "\n".join(["WEBVTT\n", *shown])


SUBTITLES: dict[str, Callable[[Transcript], str]] = {"srt": to_srt, "vtt": to_vtt}


def _text(cue: Cue) -> str:
    return "\n".join(cue.lines)


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
