"""The configuration of a realtime session, and OpenAI's two forms of changing and showing it.

`session.update` has nested fields (`audio.input.format`), the older `transcription_session.update` flat ones
(`input_audio_format`). Both change only the given fields, and refuse unknown ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moulin.audio.pcm import PcmEncoding
from moulin.decoding.hotwords import MOST_CHARS, MOST_HOTWORDS
from moulin.gateway.api_error import ApiError
from moulin.gateway.live_audio import FormatGuard, LiveAudio
from moulin.gateway.prompt_words import spoken_hotwords
from moulin.quoting import cut, quoted

_LOGPROBS = "item.input_audio_transcription.logprobs"

_SETTLED_SEC = 0.5
"""The pause that closes a segment in sessions without turn detection."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """One of the three audio formats of the API."""

    name: str
    older_name: str
    encoding: PcmEncoding
    sample_rate: int

    def decoder(self) -> LiveAudio:
        return LiveAudio(self.encoding, self.sample_rate)

    def guard(self) -> FormatGuard:
        return FormatGuard(self.encoding, self.sample_rate)


PCM = AudioFormat("audio/pcm", "pcm16", "s16le", 24_000)
FORMATS = (
    PCM,
    AudioFormat("audio/pcmu", "g711_ulaw", "mulaw", 8_000),
    AudioFormat("audio/pcma", "g711_alaw", "alaw", 8_000),
)


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """The condition for the end of a turn. The recogniser is the detector: speech is where it recognises words."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"

    @property
    def silence_sec(self) -> float:
        """Seconds of silence that end a turn."""
        if self.type == "semantic_vad":
            return {"low": 2.0, "high": 0.6}.get(self.eagerness, 1.2)
        return self.silence_duration_ms / 1000

    def to_dict(self) -> dict[str, Any]:
        if self.type == "semantic_vad":
            return {"type": self.type, "eagerness": self.eagerness}
        return {name: value for name, value in asdict(self).items() if name != "eagerness"}


@dataclass(frozen=True, slots=True)
class RealtimeConfig:
    """A session's settings. Without `turn_detection` the client commits. `language` is only shown; `keywords` are
    hotwords, and where the model `uses_hotwords` the words of a `prompt` that lists some."""

    model: str
    format: AudioFormat = PCM
    turn_detection: TurnDetection | None = TurnDetection()
    language: str | None = None
    prompt: str | None = None
    keywords: tuple[str, ...] = ()
    logprobs: bool = False
    uses_hotwords: bool = False

    @property
    def stream_options(self) -> dict[str, Any]:
        """The options for streams on Triton."""
        silence = self.turn_detection.silence_sec if self.turn_detection else _SETTLED_SEC
        words = spoken_hotwords(self.keywords, self.prompt if self.uses_hotwords else None)
        hotwords = {"hotwords": words} if words else {}
        return {"endpoint": True, "rule2_min_trailing_silence_sec": silence, **hotwords}

    def updated(self, session: Any) -> RealtimeConfig:
        """The settings after a `session.update` with `session`; the model has the client's name. Raises ApiError."""
        return replace(self, **_parsed(_Session, session).settings())

    def updated_older(self, session: Any) -> RealtimeConfig:
        """The settings after a `transcription_session.update` with `session`. Raises ApiError."""
        return replace(self, **_parsed(_OlderSession, session).settings())

    def to_dict(self, session_id: str) -> dict[str, Any]:
        """The settings in the form of `session.created` and `session.updated`."""
        rate = {"rate": self.format.sample_rate} if self.format is PCM else {}
        return {
            **self._head(session_id),
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": self.format.name, **rate},
                    "noise_reduction": None,
                    "transcription": self._transcription(),
                    "turn_detection": self._turn_detection(),
                }
            },
        }

    def to_older_dict(self, session_id: str) -> dict[str, Any]:
        """The settings in the form of `transcription_session.created` and `transcription_session.updated`."""
        return {
            **self._head(session_id),
            "input_audio_format": self.format.older_name,
            "input_audio_noise_reduction": None,
            "input_audio_transcription": self._transcription(),
            "turn_detection": self._turn_detection(),
            "client_secret": None,
        }

    def _head(self, session_id: str) -> dict[str, Any]:
        include = [_LOGPROBS] if self.logprobs else None
        return {"id": session_id, "object": "realtime.transcription_session", "include": include}

    def _transcription(self) -> dict[str, Any]:
        keywords = {"keywords": list(self.keywords)} if self.keywords else {}
        return {"model": self.model, "language": self.language, "prompt": self.prompt, **keywords}

    def _turn_detection(self) -> dict[str, Any] | None:
        return self.turn_detection.to_dict() if self.turn_detection else None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def given(self, name: str) -> bool:
        """Whether the client gave the field, even as null."""
        return name in self.model_fields_set


class _Transcription(_Strict):
    # The session's events show these four again, so they are bounded.
    model: str | None = Field(None, max_length=256)
    language: str | None = Field(None, max_length=64)
    prompt: str | None = Field(None, max_length=10_000)
    keywords: list[Annotated[str, Field(min_length=1, max_length=MOST_CHARS)]] | None = Field(
        None, max_length=MOST_HOTWORDS
    )
    # Hints for other kinds of models: accepted and unused.
    languages: list[str] | None = Field(None, max_length=100)
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None

    def settings(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in ("language", "prompt") if self.given(name)}
        if self.given("keywords"):
            settings["keywords"] = tuple(self.keywords or ())
        return settings | ({"model": self.model} if self.model is not None else {})


class _ServerVad(_Strict):
    type: Literal["server_vad"]
    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=10_000)
    silence_duration_ms: int = Field(500, ge=100, le=30_000)
    # For conversations, in which the model answers: accepted and unused.
    create_response: bool | None = None
    interrupt_response: bool | None = None
    idle_timeout_ms: None = None

    def detection(self) -> TurnDetection:
        return TurnDetection("server_vad", self.threshold, self.prefix_padding_ms, self.silence_duration_ms)


class _SemanticVad(_Strict):
    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool | None = None
    interrupt_response: bool | None = None

    def detection(self) -> TurnDetection:
        return TurnDetection("semantic_vad", eagerness=self.eagerness)


_Detection = Annotated[_ServerVad | _SemanticVad, Field(discriminator="type")] | None
_Include = list[Literal["item.input_audio_transcription.logprobs"]] | None


class _NoiseReduction(_Strict):
    """Accepted and unused: recognisers are trained with noise."""

    type: Literal["near_field", "far_field"] | None = None
    strength: float | None = None


class _Pcm(_Strict):
    type: Literal["audio/pcm"]
    rate: Literal[24_000] = 24_000


class _Pcmu(_Strict):
    type: Literal["audio/pcmu"]


class _Pcma(_Strict):
    type: Literal["audio/pcma"]


class _Input(_Strict):
    format: Annotated[_Pcm | _Pcmu | _Pcma, Field(discriminator="type")] | None = None
    transcription: _Transcription | None = None
    turn_detection: _Detection = None
    noise_reduction: _NoiseReduction | None = None

    def settings(self) -> dict[str, Any]:
        settings = self.transcription.settings() if self.transcription else {}
        if self.given("turn_detection"):
            settings["turn_detection"] = self.turn_detection.detection() if self.turn_detection else None
        if self.format:
            settings["format"] = next(known for known in FORMATS if known.name == self.format.type)
        return settings


class _Audio(_Strict):
    input: _Input | None = None


class _Session(_Strict):
    type: Literal["transcription"] = "transcription"
    audio: _Audio | None = None
    include: _Include = None

    def settings(self) -> dict[str, Any]:
        settings = self.audio.input.settings() if self.audio and self.audio.input else {}
        return settings | ({"logprobs": bool(self.include)} if self.given("include") else {})


class _OlderSession(_Strict):
    input_audio_format: Literal["pcm16", "g711_ulaw", "g711_alaw"] | None = None
    input_audio_transcription: _Transcription | None = None
    turn_detection: _Detection = None
    input_audio_noise_reduction: _NoiseReduction | None = None
    include: _Include = None
    modalities: list[Literal["text", "audio"]] | None = None
    client_secret: dict[str, Any] | None = None

    def settings(self) -> dict[str, Any]:
        settings = self.input_audio_transcription.settings() if self.input_audio_transcription else {}
        if self.given("turn_detection"):
            settings["turn_detection"] = self.turn_detection.detection() if self.turn_detection else None
        if self.input_audio_format:
            settings["format"] = next(known for known in FORMATS if known.older_name == self.input_audio_format)
        return settings | ({"logprobs": bool(self.include)} if self.given("include") else {})


_Model = TypeVar("_Model", bound=_Strict)

_CODES = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}
_TAGS = {"server_vad", "semantic_vad", *(known.name for known in FORMATS)}
"""Names of types in pydantic's error paths, which are not keys of the client's message."""


def _parsed(model: type[_Model], session: Any) -> _Model:
    """`session`, validated. Raises ApiError that names its first fault."""
    try:
        return model.model_validate(session)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    param = ".".join(["session", *(cut(str(part)) for part in first["loc"] if part not in _TAGS)])
    if param == "session.type":
        raise ApiError(
            400,
            f"Expected session.type 'transcription', got {quoted(first['input'])}",
            code="invalid_value",
            param=param,
            hint="this server transcribes; it holds no conversations",
        )
    code = _CODES.get(first["type"], "invalid_value")
    if code == "unknown_parameter":
        raise ApiError(400, f"Unknown parameter: '{param}'.", code=code, param=param)
    if code == "missing_required_parameter":
        raise ApiError(400, f"Missing required parameter: '{param}'.", code=code, param=param)
    raise ApiError(400, f"Invalid value for '{param}': {cut(first['msg'], 300)}", code=code, param=param)
