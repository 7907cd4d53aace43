"""What a realtime session is set to, and OpenAI's two ways of changing and showing it.

`session.update` nests it (`audio.input.format`), the older `transcription_session.update` does not
(`input_audio_format`). Both change only what they name, and refuse what neither of them knows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moulin.audio.pcm import PcmEncoding
from moulin.gateway.api_error import ApiError
from moulin.gateway.live_audio import LiveAudio

_LOGPROBS = "item.input_audio_transcription.logprobs"

_SETTLED_SEC = 0.5
"""Without turn detection: a pause after which what was said is taken for final."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """One of the three that the API knows."""

    name: str
    older_name: str
    encoding: PcmEncoding
    sample_rate: int

    def decoder(self) -> LiveAudio:
        return LiveAudio(self.encoding, self.sample_rate)


PCM = AudioFormat("audio/pcm", "pcm16", "s16le", 24_000)
FORMATS = (
    PCM,
    AudioFormat("audio/pcmu", "g711_ulaw", "mulaw", 8_000),
    AudioFormat("audio/pcma", "g711_alaw", "alaw", 8_000),
)


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """When a turn ends by itself. The recogniser is the detector: speech is what it hears words in."""

    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"

    @property
    def silence_sec(self) -> float:
        """How long a speaker is silent when the turn is over."""
        if self.type == "semantic_vad":
            return {"low": 2.0, "high": 0.6}.get(self.eagerness, 1.2)
        return self.silence_duration_ms / 1000

    def to_dict(self) -> dict[str, Any]:
        if self.type == "semantic_vad":
            return {"type": self.type, "eagerness": self.eagerness}
        return {name: value for name, value in asdict(self).items() if name != "eagerness"}


@dataclass(frozen=True, slots=True)
class RealtimeConfig:
    """`turn_detection` None: the client commits. `language` and `prompt` are only remembered."""

    model: str
    format: AudioFormat = PCM
    turn_detection: TurnDetection | None = TurnDetection()
    language: str | None = None
    prompt: str | None = None
    logprobs: bool = False

    @property
    def stream_options(self) -> dict[str, Any]:
        """Of the stream on Triton."""
        silence = self.turn_detection.silence_sec if self.turn_detection else _SETTLED_SEC
        return {"endpoint": True, "rule2_min_trailing_silence_sec": silence}

    def updated(self, session: Any) -> RealtimeConfig:
        """With what the `session` of a `session.update` changes; the model as the client calls it. Raises ApiError."""
        return replace(self, **_parsed(_Session, session).settings())

    def updated_older(self, session: Any) -> RealtimeConfig:
        """With what the `session` of a `transcription_session.update` changes. Raises ApiError."""
        return replace(self, **_parsed(_OlderSession, session).settings())

    def to_dict(self, session_id: str) -> dict[str, Any]:
        """As `session.created` and `session.updated` show it."""
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
        """As `transcription_session.created` and `transcription_session.updated` show it."""
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
        return {"model": self.model, "language": self.language, "prompt": self.prompt}

    def _turn_detection(self) -> dict[str, Any] | None:
        return self.turn_detection.to_dict() if self.turn_detection else None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    def given(self, name: str) -> bool:
        """Whether the client named it, if only to say null."""
        return name in self.model_fields_set


class _Transcription(_Strict):
    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    # Hints to models of other kinds: taken and not used.
    languages: list[str] | None = None
    keywords: list[str] | None = None
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None

    def settings(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in ("language", "prompt") if self.given(name)}
        return settings | ({"model": self.model} if self.model is not None else {})


class _ServerVad(_Strict):
    type: Literal["server_vad"]
    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=10_000)
    silence_duration_ms: int = Field(500, ge=100, le=30_000)
    # Of conversations, where the model answers.
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
    """Taken and not used: recognisers are trained on noise."""

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
"""pydantic's path through a choice of types names the type, which is no key of the client's."""


def _parsed(model: type[_Model], session: Any) -> _Model:
    """`session`, if it is one. Raises ApiError that names the first thing that is wrong with it."""
    try:
        return model.model_validate(session)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    param = ".".join(["session", *(str(part) for part in first["loc"] if part not in _TAGS)])
    if param == "session.type":
        raise ApiError(
            400,
            f"Expected session.type 'transcription', got {first['input']!r}",
            code="invalid_value",
            param=param,
            hint="this server transcribes; it holds no conversations",
        )
    code = _CODES.get(first["type"], "invalid_value")
    if code == "unknown_parameter":
        raise ApiError(400, f"Unknown parameter: '{param}'.", code=code, param=param)
    if code == "missing_required_parameter":
        raise ApiError(400, f"Missing required parameter: '{param}'.", code=code, param=param)
    raise ApiError(400, f"Invalid value for '{param}': {first['msg']}", code=code, param=param)
