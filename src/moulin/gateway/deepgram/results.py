"""Transcripts and segments in Deepgram's form."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import reduce
from itertools import pairwise
from typing import Any

import moulin
from moulin.gateway.confidence import confidence_of
from moulin.gateway.deepgram.wish import Wish
from moulin.live_transcript import Segment
from moulin.spacing import join_texts
from moulin.transcript import PlacedWord, Transcript, Word

_PARAGRAPH_SEC = 2.0
"""A pause that ends a paragraph."""


def model_facts(model: str) -> dict[str, str]:
    return {"name": model, "version": moulin.__version__, "arch": "transducer"}


def model_uuid(model: str) -> str:
    """The same for the same name, on every server."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"moulin:{model}"))


def metadata(request_id: str, model: str, *, duration_sec: float, channels: int, sha256: str) -> dict[str, Any]:
    """The metadata of a recording, and of a stream that has ended."""
    return {
        "transaction_key": "deprecated",
        "request_id": request_id,
        "sha256": sha256,
        "created": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "duration": round(duration_sec, 3),
        "channels": channels,
        "models": [model_uuid(model)],
        "model_info": {model_uuid(model): model_facts(model)},
    }


def live_result(
    segment: Segment | None, channel: tuple[int, int], start_sec: float, end_sec: float, **said: Any
) -> dict[str, Any]:
    """A `Results` message about audio from `start_sec` to `end_sec`; without a segment nothing was said. `channel` is
    a number from 0 and how many there are, `said` further fields."""
    words: Sequence[Word] = segment.words if segment else ()
    return {
        "type": "Results",
        "channel_index": list(channel),
        "start": round(start_sec, 3),
        "duration": round(max(end_sec - start_sec, 0.0), 3),
        "channel": {"alternatives": [_alternative(segment.text if segment else "", words)]},
        **said,
    }


def recorded_results(transcript: Transcript, wish: Wish) -> dict[str, Any]:
    """The `results` of a recording."""
    channels = _by_channel(transcript.words) if wish.multichannel else [list(transcript.words)]
    texts = [_text(words) for words in channels] if wish.multichannel else [transcript.text]
    found: dict[str, Any] = {
        "channels": [
            {
                "alternatives": [
                    _alternative(text, words)
                    | ({"paragraphs": _paragraphs(words, wish.utt_split_sec)} if wish.paragraphs else {})
                ]
            }
            for text, words in zip(texts, channels, strict=True)
        ]
    }
    if wish.utterances:
        utterances = (
            _utterance(words, channel)
            for channel, all_words in enumerate(channels)
            for words in _parts(all_words, wish.utt_split_sec)
        )
        found["utterances"] = sorted(utterances, key=lambda utterance: utterance["start"])
    return found


def _by_channel(words: Iterable[Word]) -> list[list[Word]]:
    """The words of each channel, up to the last one with speech."""
    found: list[list[Word]] = [[]]
    for word in words:
        number = (word.channel if isinstance(word, PlacedWord) else None) or 1
        found.extend([] for _ in range(number - len(found)))
        found[number - 1].append(word)
    return found


def _alternative(text: str, words: Sequence[Word]) -> dict[str, Any]:
    return {"transcript": text, "confidence": round(confidence_of(words), 4), "words": list(map(_word, words))}


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": word.word,
        "start": word.start_sec,
        "end": word.end_sec,
        "confidence": word.confidence,
        "punctuated_word": word.word,
    }


def _parts(words: Sequence[Word], pause_sec: float) -> Iterator[Sequence[Word]]:
    """The words between pauses longer than `pause_sec`."""
    ends = [at for at, (one, other) in enumerate(pairwise(words), 1) if other.start_sec - one.end_sec > pause_sec]
    bounds = [0, *ends, len(words)]
    return (words[begin:end] for begin, end in pairwise(bounds) if end > begin)


def _utterance(words: Sequence[Word], channel: int) -> dict[str, Any]:
    return {
        "start": words[0].start_sec,
        "end": words[-1].end_sec,
        "confidence": round(confidence_of(words), 4),
        "channel": channel,
        "transcript": _text(words),
        "words": list(map(_word, words)),
        "id": str(uuid.uuid4()),
    }


def _paragraphs(words: Sequence[Word], split_sec: float) -> dict[str, Any]:
    """Paragraphs by pauses; their sentences are utterances, for models write no full stops."""
    found = [list(_parts(part, split_sec)) for part in _parts(words, max(_PARAGRAPH_SEC, split_sec))]
    return {
        "transcript": "\n\n".join(" ".join(map(_text, sentences)) for sentences in found),
        "paragraphs": [
            {
                "sentences": [{"text": _text(s), "start": s[0].start_sec, "end": s[-1].end_sec} for s in sentences],
                "num_words": sum(map(len, sentences)),
                "start": sentences[0][0].start_sec,
                "end": sentences[-1][-1].end_sec,
            }
            for sentences in found
        ],
    }


def _text(words: Iterable[Word]) -> str:
    return reduce(join_texts, (word.word for word in words), "")
