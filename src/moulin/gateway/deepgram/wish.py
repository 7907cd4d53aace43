"""What a client wishes by the parameters of Deepgram's URL."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from moulin.audio.pcm import PcmEncoding, RawFormat
from moulin.audio.selection import Selection
from moulin.client.served_model import ServedModel
from moulin.gateway.api_error import ApiError
from moulin.gateway.form_fields import given_twice
from moulin.gateway.live_audio import MAX_RATE, MIN_RATE
from moulin.gateway.spoken_languages import check_languages
from moulin.quoting import quoted

MOST_CHANNELS = 32
_MOST_LIVE_CHANNELS = 8
"""Channels that are heard by themselves in a live stream: each takes a place of `--max-streams`."""

LEAST_PAUSE_SEC = 0.3
"""A shorter pause ends no utterance. Deepgram asks a detector of voices, with 10 ms as its default; here the pause is
counted in frames without a token, of which there are as many between the words of a slow speaker."""

_PCM: dict[str, PcmEncoding] = {"linear16": "s16le", "linear32": "f32le", "mulaw": "mulaw", "alaw": "alaw"}
_CODED = ("flac", "opus", "ogg-opus", "speex", "amr-nb", "amr-wb")
"""Encodings that are decoded where they come in their containers."""

_REFUSED = {
    "diarize": "no model here tells speakers apart; of speakers on channels of their own, multichannel does",
    "redact": "take it out of the transcript yourself",
    "replace": "replace words in the transcript yourself",
    "search": "look for words in the transcript yourself",
    "callback": "the answer comes on the connection",
    **dict.fromkeys(
        ("summarize", "topics", "intents", "sentiment", "detect_entities", "translate"),
        "the models here write down what they hear, and no more",
    ),
}
"""Parameters that would change the result, each with a hint."""

_USED = {
    *("model", "language", "encoding", "sample_rate", "channels", "multichannel", "keyterm", "keywords"),
    *("utterances", "utt_split", "paragraphs"),
}
_USED_LIVE = {"interim_results", "endpointing", "utterance_end_ms", "vad_events"}
_OFF = ("", "false", "none", "null", "0")
_MOST_IGNORED = 32


@dataclass(frozen=True, slots=True)
class Wish:
    """The checked parameters of a request or a connection."""

    model: str
    language: str
    """Empty where the client says none."""
    raw: RawFormat | None
    """The form of audio without a header; None for a container."""
    multichannel: bool
    interim_results: bool
    speech_final: bool
    """Whether pauses are reported."""
    pause_sec: float
    """The pause that ends an utterance."""
    utterance_end_sec: float | None
    vad_events: bool
    phrases: tuple[str, ...]
    utterances: bool
    utt_split_sec: float
    paragraphs: bool
    ignored: tuple[str, ...]
    """The names of parameters that change nothing."""

    @classmethod
    def of(cls, items: Iterable[tuple[str, str]], *, live: bool) -> Wish:
        """The wish of a URL's parameters. Raises ApiError 400."""
        query = _Query(items)
        for name, hint in _REFUSED.items():
            query.expect_off(name, hint)
        multichannel = query.flag("multichannel")
        raw = _raw(query)
        if live and multichannel and not (raw and raw.channels <= _MOST_LIVE_CHANNELS):
            raise ApiError(
                400,
                f"Expected encoding, sample_rate and channels of at most {_MOST_LIVE_CHANNELS} with multichannel, "
                f"got {'containers' if raw is None else raw.channels}",
                param="multichannel",
                hint="send linear16 with the channels interleaved",
            )
        endpointing = query.text("endpointing", "true").lower()
        is_off = endpointing in ("false", "0")
        pause_ms = 0.0 if is_off or endpointing == "true" else query.number("endpointing", at_least=0, at_most=60_000)
        end_ms = query.number("utterance_end_ms", at_least=0, at_most=60_000) if query.text("utterance_end_ms") else 0
        pause_sec = max(LEAST_PAUSE_SEC, pause_ms / 1000)
        return cls(
            model=query.text("model"),
            language=query.text("language"),
            raw=raw,
            multichannel=multichannel,
            interim_results=query.flag("interim_results"),
            speech_final=not is_off,
            pause_sec=min(pause_sec, end_ms / 1000) if end_ms else pause_sec,
            utterance_end_sec=end_ms / 1000 if end_ms else None,
            vad_events=query.flag("vad_events"),
            phrases=tuple(_phrases(query)),
            utterances=query.flag("utterances"),
            utt_split_sec=query.number("utt_split", at_least=0, at_most=60) if query.text("utt_split") else 0.8,
            paragraphs=query.flag("paragraphs"),
            ignored=query.ignored(_USED | _USED_LIVE if live else _USED),
        )

    @property
    def channels(self) -> int:
        """How many channels of a live stream are heard by themselves."""
        return self.raw.channels if self.multichannel and self.raw else 1

    @property
    def selection(self) -> Selection:
        """The channels of a recording that are heard."""
        return Selection("each" if self.multichannel else "mix")

    def decoding_options(self, *, hotwords: bool) -> dict[str, Any]:
        """Options of the search. `hotwords`: whether the model uses them."""
        return {"hotwords": list(self.phrases)} if self.phrases and hotwords else {}

    def stream_options(self, *, hotwords: bool) -> dict[str, Any]:
        """Options of a stream, as `StreamOptions` names them."""
        return self.decoding_options(hotwords=hotwords) | {"rule2_min_trailing_silence_sec": self.pause_sec}

    def ignored_with(self, model: ServedModel) -> tuple[str, ...]:
        """The names of what changes nothing with this model. Raises ApiError for a language that it does not hear."""
        unused = [] if model.uses_hotwords or not self.phrases else ["keyterm"]
        if self.language and not check_languages((self.language,), model.languages, param="language"):
            unused.append("language")
        return (*self.ignored, *unused)


class _Query:
    """A URL's parameters; those that are read with `all` may come several times."""

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in items:
            self._values.setdefault(name, []).append(value)

    def text(self, name: str, otherwise: str = "") -> str:
        """The value; `otherwise` where there is none, or an empty one. Raises ApiError 400 for two."""
        values = [value for value in self._values.get(name, ()) if value]
        if len(set(values)) > 1:
            raise given_twice(name, *values[:2])
        return values[0] if values else otherwise

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def flag(self, name: str) -> bool:
        value = self.text(name, "false")
        if value.lower() not in ("true", "false"):
            raise _invalid(name, "to be true or false", value)
        return value.lower() == "true"

    def number(self, name: str, *, at_least: float, at_most: float) -> float:
        value = self.text(name)
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not at_least <= number <= at_most:
            raise _invalid(name, f"to be a number of {at_least:g} to {at_most:g}", value)
        return number

    def whole_number(self, name: str, *, at_least: int, at_most: int) -> int:
        value = self.text(name)
        if not (value.isascii() and value.isdecimal() and len(value) < 10 and at_least <= int(value) <= at_most):
            raise _invalid(name, f"to be a whole number of {at_least} to {at_most}", value)
        return int(value)

    def expect_off(self, name: str, hint: str) -> None:
        for value in self.all(name):
            if value.lower() not in _OFF:
                raise ApiError(
                    400, f"Expected no {name}, got {quoted(value)}", code="unsupported", param=name, hint=hint
                )

    def ignored(self, used: set[str]) -> tuple[str, ...]:
        """The names of parameters that are given, not switched off, and not used."""
        names = (name for name, values in self._values.items() if any(value.lower() not in _OFF for value in values))
        return tuple(name for name in names if name not in used)[:_MOST_IGNORED]


def _raw(query: _Query) -> RawFormat | None:
    encoding, channels, rate = query.text("encoding").lower(), 1, None
    if query.text("channels"):
        channels = query.whole_number("channels", at_least=1, at_most=MOST_CHANNELS)
    if query.text("sample_rate"):
        rate = query.whole_number("sample_rate", at_least=MIN_RATE, at_most=MAX_RATE)
    if not encoding or encoding in _CODED:
        return None
    if encoding not in _PCM:
        raise _invalid("encoding", f"to be one of {', '.join([*_PCM, *_CODED])}", encoding)
    if rate is None:
        raise ApiError(400, f"Expected sample_rate with encoding {encoding}, got none", param="sample_rate")
    return RawFormat(_PCM[encoding], rate, channels)


def _phrases(query: _Query) -> Iterable[str]:
    """Words and phrases to expect: `keyterm`, and `keywords` without their boosts; none of a negative boost."""
    yield from dict.fromkeys(phrase for phrase in query.all("keyterm") if phrase.strip())
    for keyword in query.all("keywords"):
        word, _, boost = keyword.rpartition(":")
        try:
            if word and float(boost) < 0:
                continue
        except ValueError:
            word = keyword
        if (word or keyword).strip():
            yield word or keyword


def _invalid(name: str, wanted: str, got: str) -> ApiError:
    return ApiError(400, f"Expected {name} {wanted}, got {quoted(got)}", code="invalid_value", param=name)
