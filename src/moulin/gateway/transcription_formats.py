"""Transcripts in the response formats of OpenAI's API."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from moulin.cues import Cue, cues
from moulin.gateway.transcription_request import TranscriptionRequest
from moulin.spacing import join_texts
from moulin.transcript import Transcript, Word, place_of
from moulin.transcript_formats import to_srt, to_vtt

_TURN_PAUSE_SEC = 1.0
"""A longer pause ends a segment of `diarized_json`."""


def response(transcript: Transcript, request: TranscriptionRequest) -> Response:
    """The response in the requested `response_format`."""
    match request.response_format:
        case "text":
            return PlainTextResponse(transcript.text + "\n")
        case "srt":
            return PlainTextResponse(to_srt(transcript))
        case "vtt":
            return PlainTextResponse(to_vtt(transcript), media_type="text/vtt")
        case "diarized_json":
            return JSONResponse(_diarized(transcript, request))
        case "verbose_json":
            return JSONResponse(_verbose(transcript, request))
        case "json":
            return JSONResponse(_plain(transcript, request))


def event(fields: dict[str, Any]) -> bytes:
    """A server-sent event whose data is this object."""
    return f"data: {json.dumps(fields, ensure_ascii=False)}\n\n".encode()


def delta_event(text: str) -> bytes:
    return event({"type": "transcript.text.delta", "delta": text})


def words_event(text: str, words: Sequence[Word], heard_sec: float, peaks: Sequence[dict[str, Any]]) -> bytes:
    """A delta of `verbose_json`: with words, how far the recording was heard, and peaks where they were asked for."""
    fields = {"type": "transcript.text.delta", "delta": text, "heard_sec": round(heard_sec, 3)}
    return event({**fields, "words": list(map(_word, words)), **({"peaks": list(peaks)} if peaks else {})})


def verbose_done_event(
    transcript: Transcript, request: TranscriptionRequest, peaks: Sequence[dict[str, Any]] = ()
) -> bytes:
    """The last event of `verbose_json`: all that the response without events would be, but `usage`, which OpenAI's
    event counts in tokens."""
    fields = {"type": "transcript.text.done", **_verbose(transcript, request)}
    del fields["usage"]
    return event({**fields, **({"peaks": list(peaks)} if peaks else {})})


def done_event(transcript: Transcript, request: TranscriptionRequest) -> bytes:
    warnings = {"warnings": list(transcript.warnings)} if transcript.warnings else {}
    fields = {"type": "transcript.text.done", "text": transcript.text, **_log_probs(transcript, request)}
    return event({**fields, **warnings})


def _plain(transcript: Transcript, request: TranscriptionRequest) -> dict[str, Any]:
    usage = {"type": "duration", "seconds": math.ceil(transcript.duration_sec)}
    warnings = {"warnings": list(transcript.warnings)} if transcript.warnings else {}
    return {"text": transcript.text, "usage": usage, **_log_probs(transcript, request), **warnings}


def _verbose(transcript: Transcript, request: TranscriptionRequest) -> dict[str, Any]:
    fields = {
        "task": "transcribe",
        "language": request.language or "unknown",
        "duration": transcript.duration_sec,
        **_plain(transcript, request),
    }
    wanted = request.timestamp_granularities or ("segment",)
    if "word" in wanted:
        fields["words"] = list(map(_word, transcript.words))
    if "segment" in wanted:
        fields["segments"] = [_segment(number, cue, request.temperature) for number, cue in enumerate(cues(transcript))]
    return {**fields, **transcript.others_to_dict()}


def _word(word: Word) -> dict[str, Any]:
    """OpenAI's fields, and moulin's own."""
    confidence = round(word.confidence, 4)
    return {"word": word.word, "start": word.start_sec, "end": word.end_sec, "confidence": confidence, **place_of(word)}


def _diarized(transcript: Transcript, request: TranscriptionRequest) -> dict[str, Any]:
    """A speaker for each channel or track, A, B, … in their order."""
    places = sorted(set(map(_speaker_place, transcript.words)))
    return {
        "task": "transcribe",
        "duration": transcript.duration_sec,
        **_plain(transcript, request),
        "segments": [
            {
                "type": "transcript.text.segment",
                "id": f"seg_{number}",
                "start": words[0].start_sec,
                "end": words[-1].end_sec,
                "text": reduce(join_texts, (word.word for word in words)),
                "speaker": _speaker_name(places.index(_speaker_place(words[0]))),
            }
            for number, words in enumerate(_spoken_in_turn(transcript.words))
        ],
    }


def _spoken_in_turn(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """What one speaker says until another does, or until a pause."""
    begin = 0
    for end in range(1, len(words) + 1):
        last = words[end - 1]
        following = words[end] if end < len(words) else None
        if (
            following is None
            or _speaker_place(following) != _speaker_place(last)
            or following.start_sec - last.end_sec > _TURN_PAUSE_SEC
        ):
            yield words[begin:end]
            begin = end


def _speaker_place(word: Word) -> tuple[int, int]:
    place = place_of(word)
    return place.get("track", 0), place.get("channel", 0)


def _speaker_name(number: int) -> str:
    """A, B, …, Z, A2, B2, …"""
    again, letter = divmod(number, 26)
    return chr(ord("A") + letter) + (str(again + 1) if again else "")


def _segment(number: int, cue: Cue, temperature: float) -> dict[str, Any]:
    """A segment with Whisper's fields; those that a transducer lacks (tokens, no_speech_prob) are empty or 0."""
    text = cue.text.encode()
    return {
        "id": number,
        "seek": round(cue.start_sec * 100),
        "start": cue.start_sec,
        "end": cue.end_sec,
        "text": cue.text,
        "tokens": [],
        "temperature": temperature,
        "avg_logprob": sum(map(_log_prob, cue.words)) / len(cue.words),
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 3),
        "no_speech_prob": 0.0,
        **place_of(cue.words[0]),
    }


def _log_probs(transcript: Transcript, request: TranscriptionRequest) -> dict[str, Any]:
    """One entry for each word, the mean over its tokens, if requested."""
    if "logprobs" not in request.include:
        return {}
    return {
        "logprobs": [
            {"token": word.word, "bytes": list(word.word.encode()), "logprob": _log_prob(word)}
            for word in transcript.words
        ]
    }


def _log_prob(word: Word) -> float:
    return round(math.log(word.confidence), 4)
