"""What a client wishes by Riva's `RecognitionConfig`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moulin.audio.pcm import PcmEncoding, RawFormat
from moulin.audio.selection import Selection
from moulin.decoding.options import MAX_NBEST
from moulin.gateway.api_error import ApiError
from moulin.gateway.live_audio import MAX_RATE, MIN_RATE
from moulin.gateway.riva.messages import encoding_name
from moulin.gateway.spoken_languages import check_languages
from moulin.quoting import quoted

MOST_CHANNELS = 32

_PCM: dict[str, PcmEncoding] = {
    "ENCODING_UNSPECIFIED": "s16le",
    "LINEAR_PCM": "s16le",
    "MULAW": "mulaw",
    "ALAW": "alaw",
}
_FILES = ("FLAC", "OGGOPUS")
_UNUSED = (
    "profanity_filter",
    "enable_automatic_punctuation",
    "verbatim_transcripts",
    "custom_configuration",
)
_UNUSED_ENDPOINTING = ("start_history", "start_threshold", "stop_threshold", "stop_history_eou", "stop_threshold_eou")


@dataclass(frozen=True, slots=True)
class Wish:
    """The checked configuration of a call."""

    model: str
    language: str
    encoding: str
    """Riva's name, one of those that it has."""
    sample_rate: int
    """0 where the client says none."""
    channels: int
    each_channel: bool
    word_times: bool
    phrases: tuple[str, ...]
    pause_sec: float | None
    """The pause that ends an utterance; None for the server's."""
    ignored: tuple[str, ...]
    """The names of fields that change nothing."""
    alternatives: int = 1
    """The most texts of a result."""

    @classmethod
    def of(cls, config: Any) -> Wish:
        """The wish of a `RecognitionConfig`. Raises ApiError 400."""
        encoding = encoding_name(config.encoding)
        if encoding not in _PCM and encoding not in _FILES:
            raise _invalid("encoding", f"to be one of {', '.join([*_PCM, *_FILES])}", encoding)
        if not 0 <= config.audio_channel_count <= MOST_CHANNELS:
            raise _invalid("audio_channel_count", f"of 1 to {MOST_CHANNELS}", config.audio_channel_count)
        if config.diarization_config.enable_speaker_diarization:
            raise ApiError(
                400,
                "Expected no speaker diarization, got enable_speaker_diarization: no model here tells speakers apart",
                code="unsupported",
                param="diarization_config",
                hint="of speakers on channels of their own, enable_separate_recognition_per_channel does",
            )
        stop_ms = config.endpointing_config.stop_history
        return cls(
            model=config.model,
            language=config.language_code,
            encoding=encoding,
            sample_rate=config.sample_rate_hertz,
            channels=config.audio_channel_count or 1,
            each_channel=config.enable_separate_recognition_per_channel,
            word_times=config.enable_word_time_offsets,
            phrases=tuple(dict.fromkeys(p for c in config.speech_contexts if c.boost >= 0 for p in c.phrases)),
            pause_sec=stop_ms / 1000 if stop_ms > 0 else None,
            ignored=tuple(_ignored(config)),
            alternatives=max(1, min(config.max_alternatives, MAX_NBEST)),
        )

    @property
    def selection(self) -> Selection:
        """The channels that are heard."""
        return Selection("each" if self.each_channel else "mix")

    @property
    def raw(self) -> RawFormat:
        """The form of audio that has no header. Raises ApiError 400 where the configuration gives none."""
        if self.encoding in _FILES:
            raise ApiError(
                400,
                f"Expected audio that begins as {self.encoding} does, got other bytes",
                code="invalid_audio",
                param="audio",
                hint="LINEAR_PCM, MULAW and ALAW may come without a header",
            )
        if not MIN_RATE <= self.sample_rate <= MAX_RATE:
            raise _invalid("sample_rate_hertz", f"of {MIN_RATE} to {MAX_RATE} with {self.encoding}", self.sample_rate)
        return RawFormat(_PCM[self.encoding], self.sample_rate, self.channels)

    def decoding_options(self, *, hotwords: bool, alternatives: bool) -> dict[str, Any]:
        """Options of the search. `hotwords`, `alternatives`: whether the model uses or gives them."""
        phrases = {"hotwords": list(self.phrases)} if self.phrases and hotwords else {}
        return phrases | ({"nbest": self.alternatives} if self.alternatives > 1 and alternatives else {})

    def stream_options(self, *, hotwords: bool, alternatives: bool) -> dict[str, Any]:
        """Options of a stream, as `StreamOptions` names them."""
        pause = {} if self.pause_sec is None else {"rule2_min_trailing_silence_sec": self.pause_sec}
        return self.decoding_options(hotwords=hotwords, alternatives=alternatives) | pause


def expect_language(wish: Wish, languages: Sequence[str]) -> None:
    """Raises ApiError where the client's language is none that the model hears, as far as its files say."""
    if wish.language:
        check_languages((wish.language,), languages, param="language_code")


def _ignored(config: Any) -> list[str]:
    names = [name for name in _UNUSED if getattr(config, name)]
    if any(context.boost for context in config.speech_contexts):
        names.append("speech_contexts.boost")
    given = config.endpointing_config
    return names + [f"endpointing_config.{name}" for name in _UNUSED_ENDPOINTING if given.HasField(name)]


def _invalid(name: str, wanted: str, got: object) -> ApiError:
    return ApiError(400, f"Expected {name} {wanted}, got {quoted(got)}", code="invalid_value", param=name)
