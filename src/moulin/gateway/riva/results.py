"""Transcripts and segments as Riva's results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

from moulin.gateway.confidence import confidence_of
from moulin.gateway.riva.messages import (
    SpeechRecognitionAlternative,
    SpeechRecognitionResult,
    StreamingRecognitionResult,
    WordInfo,
)
from moulin.gateway.riva.wish import Wish
from moulin.live_transcript import Segment
from moulin.spacing import join_texts
from moulin.transcript import PlacedWord, Transcript, Word


def recognized(transcript: Transcript, wish: Wish) -> Iterator[Any]:
    """`SpeechRecognitionResult`s: one of a recording, or one of each channel with speech; none without speech."""
    if not wish.each_channel:
        if transcript.text:
            yield _recognized(_alternatives(transcript, wish), 1, transcript.duration_sec)
        return
    channels: dict[int, list[Word]] = {}
    for word in transcript.words:
        channel = word.channel if isinstance(word, PlacedWord) else None
        channels.setdefault(channel or 1, []).append(word)
    for channel, words in sorted(channels.items()):
        text = reduce(join_texts, (word.word for word in words), "")
        yield _recognized([_alternative(text, words, wish)], channel, transcript.duration_sec)


def live_result(segment: Segment, wish: Wish, audio_sec: float) -> Any:
    """A segment as a `StreamingRecognitionResult`. The stability of one that is open is the share of its words that
    are followed by another: the last may still change."""
    words = len(segment.words)
    return StreamingRecognitionResult(
        alternatives=_alternatives(segment, wish),
        is_final=segment.is_final,
        stability=1.0 if segment.is_final else (words - 1) / words if words else 0.0,
        channel_tag=1,
        audio_processed=audio_sec,
    )


def _recognized(alternatives: list[Any], channel: int, audio_sec: float) -> Any:
    return SpeechRecognitionResult(alternatives=alternatives, channel_tag=channel, audio_processed=audio_sec)


def _alternatives(heard: Transcript | Segment, wish: Wish) -> list[Any]:
    """One, unless the client asked for several and the audio was heard in one part."""
    return [_alternative(one.text, one.words, wish) for one in heard.alternatives or (heard,)]


def _alternative(text: str, words: Sequence[Word], wish: Wish) -> Any:
    languages = [wish.language] if wish.language else []
    return SpeechRecognitionAlternative(
        transcript=text,
        confidence=confidence_of(words),
        words=[_word(word, wish) for word in words] if wish.word_times else [],
        language_code=languages,
    )


def _word(word: Word, wish: Wish) -> Any:
    return WordInfo(
        start_time=round(word.start_sec * 1000),
        end_time=round(word.end_sec * 1000),
        word=word.word,
        confidence=word.confidence,
        language_code=wish.language,
    )
