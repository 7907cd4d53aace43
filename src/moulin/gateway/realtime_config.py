"""The configuration of a realtime session, and OpenAI's two forms of changing and showing it.

`session.update` has nested fields (`audio.input.format`), the older `transcription_session.update` flat ones
(`input_audio_format`). Both change only the given fields; those that are unknown or change nothing are named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moulin.audio.pcm import PcmEncoding
from moulin.audio.sample_format import FormatGuard
from moulin.client.served_model import ServedModel
from moulin.decoding.hotwords import MOST_CHARS, MOST_HOTWORDS
from moulin.gateway.api_error import ApiError
from moulin.gateway.live_audio import LiveAudio
from moulin.gateway.model_names import is_realtime_only
from moulin.gateway.prompt_words import spoken_hotwords
from moulin.gateway.spoken_languages import check_languages
from moulin.gateway.validation_sentences import sentence_about
from moulin.quoting import cut, quoted

_LOGPROBS = "item.input_audio_transcription.logprobs"

_MOST_IGNORED = 100

_OF_AUDIO = (
    "rate",
    "sample_rate",
    "sampling_rate",
    "sample_rate_hertz",
    "encoding",
    "codec",
    "channels",
    "num_channels",
)
"""Names that say how the audio is: where they are not fields, ignoring them would make noise of it."""

_SETTLED_SEC = 0.5
"""The pause that closes a segment in sessions without turn detection."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """One of the three audio formats of the API; PCM at any of its rates."""

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
    languages: tuple[str, ...] = ()
    prompt: str | None = None
    keywords: tuple[str, ...] = ()
    logprobs: bool = False
    uses_hotwords: bool = False
    heard_languages: tuple[str, ...] = ()
    detection_said: bool = False
    """Whether the client chose `turn_detection`, even as null; otherwise the model's name does."""
    ignored: tuple[str, ...] = ()
    """Fields of the last update that changed nothing."""

    @property
    def stream_options(self) -> dict[str, Any]:
        """The options for streams on Triton."""
        silence = self.turn_detection.silence_sec if self.turn_detection else _SETTLED_SEC
        words = spoken_hotwords(self.keywords, self.prompt if self.uses_hotwords else None)
        hotwords = {"hotwords": words} if words else {}
        return {"endpoint": True, "rule2_min_trailing_silence_sec": silence, **hotwords}

    @classmethod
    def of_name(cls, name: str | None, model: ServedModel) -> RealtimeConfig:
        """The settings of a session that begins with the client's `name` for `model`."""
        return cls(model.name, turn_detection=_usual_detection(name)).served_by(model)

    def served_by(self, model: ServedModel) -> RealtimeConfig:
        """The settings with the model in the place of the client's name for it."""
        return replace(self, model=model.name, uses_hotwords=model.uses_hotwords, heard_languages=model.languages)

    def with_languages_checked(self, old: RealtimeConfig) -> RealtimeConfig:
        """The settings, where a change of `old` says no language that the model does not hear. One that cannot be
        compared is ignored. Raises ApiError."""
        ignored = self.ignored
        for name, said, changed in (
            ("language", (self.language,) if self.language else (), self.language != old.language),
            ("languages", self.languages, self.languages != old.languages),
        ):
            changed = changed or self.heard_languages != old.heard_languages
            if said and changed and not check_languages(said, self.heard_languages, param=name):
                ignored += (name,)
        return replace(self, ignored=ignored)

    def updated(self, session: Any) -> RealtimeConfig:
        """The settings after a `session.update` with `session`; the model has the client's name. Raises ApiError."""
        return self._with(_parsed(_Session, session))

    def updated_older(self, session: Any) -> RealtimeConfig:
        """The settings after a `transcription_session.update` with `session`. Raises ApiError."""
        return self._with(_parsed(_OlderSession, session))

    def _with(self, session: _Session | _OlderSession) -> RealtimeConfig:
        settings = session.settings()
        if "turn_detection" in settings:
            settings["detection_said"] = True
        elif "model" in settings and not self.detection_said:
            settings["turn_detection"] = _usual_detection(settings["model"])
        ignored = list(islice(session.ignored(), _MOST_IGNORED))
        for name in ignored:
            if name.split(".")[-1] in session.refused:
                path = f"session.{name}"
                raise ApiError(400, f"Unknown parameter: '{cut(path)}'.", code="unknown_parameter", param=path)
        return replace(self, **settings, ignored=tuple(cut(f"session.{name}") for name in ignored))

    def to_dict(self, session_id: str) -> dict[str, Any]:
        """The settings in the form of `session.created` and `session.updated`."""
        rate = {"rate": self.format.sample_rate} if self.format.name == PCM.name else {}
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
        lists = {"keywords": list(self.keywords), "languages": list(self.languages)}
        said = {name: words for name, words in lists.items() if words}
        return {"model": self.model, "language": self.language, "prompt": self.prompt, **said}

    def _turn_detection(self) -> dict[str, Any] | None:
        return self.turn_detection.to_dict() if self.turn_detection else None


def _usual_detection(name: str | None) -> TurnDetection | None:
    """What holds where the client does not choose: its own commits for names that OpenAI serves without detection."""
    return None if is_realtime_only(name) else TurnDetection()


class _Fields(BaseModel):
    """Fields of a client's message; those of `unused` are known and change nothing."""

    model_config = ConfigDict(extra="allow")

    unused: ClassVar[tuple[str, ...]] = ()
    refused: ClassVar[tuple[str, ...]] = _OF_AUDIO
    """Unknown fields that must not be passed over."""

    def given(self, name: str) -> bool:
        """Whether the client gave the field, even as null."""
        return name in self.model_fields_set

    def ignored(self) -> Iterator[str]:
        """The paths of fields that change nothing, those that are refused first."""
        unknown = self.model_extra or {}
        yield from sorted(unknown, key=lambda name: name not in self.refused)
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, _Fields):
                yield from (f"{name}.{inner}" for inner in value.ignored())
            elif name in self.unused and value not in (None, []):
                yield name


class _Transcription(_Fields):
    # The session's events show these four again, so they are bounded.
    model: str | None = Field(None, max_length=256)
    language: str | None = Field(None, max_length=64)
    prompt: str | None = Field(None, max_length=10_000)
    keywords: list[Annotated[str, Field(min_length=1, max_length=MOST_CHARS)]] | None = Field(
        None, max_length=MOST_HOTWORDS
    )
    languages: list[Annotated[str, Field(max_length=64)]] | None = Field(None, max_length=100)
    # A hint for other kinds of models.
    unused: ClassVar[tuple[str, ...]] = ("delay",)
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None

    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {name: getattr(self, name) for name in ("language", "prompt") if self.given(name)}
        if self.given("languages"):
            settings["languages"] = tuple(self.languages or ())
        if self.given("keywords"):
            settings["keywords"] = tuple(self.keywords or ())
        return settings | ({"model": self.model} if self.model is not None else {})


class _ServerVad(_Fields):
    type: Literal["server_vad"]
    threshold: float = Field(0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(300, ge=0, le=10_000)
    silence_duration_ms: int = Field(500, ge=100, le=30_000)
    # For conversations, in which the model answers.
    unused: ClassVar[tuple[str, ...]] = ("create_response", "interrupt_response", "idle_timeout_ms")
    create_response: bool | None = None
    interrupt_response: bool | None = None
    idle_timeout_ms: int | None = None

    def detection(self) -> TurnDetection:
        return TurnDetection("server_vad", self.threshold, self.prefix_padding_ms, self.silence_duration_ms)


class _SemanticVad(_Fields):
    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    unused: ClassVar[tuple[str, ...]] = ("create_response", "interrupt_response")
    create_response: bool | None = None
    interrupt_response: bool | None = None

    def detection(self) -> TurnDetection:
        return TurnDetection("semantic_vad", eagerness=self.eagerness)


class _NoDetection(_Fields):
    type: Literal["none"]

    def detection(self) -> None:
        return None


_Detection = Annotated[_ServerVad | _SemanticVad | _NoDetection, Field(discriminator="type")] | None
_Include = list[Literal["item.input_audio_transcription.logprobs"]] | None


class _NoiseReduction(_Fields):
    """Recognisers are trained with noise, and none of it is taken away."""

    unused: ClassVar[tuple[str, ...]] = ("type", "strength")
    type: Literal["near_field", "far_field"] | None = None
    strength: float | None = None


class _Pcm(_Fields):
    type: Literal["audio/pcm"]
    rate: int = Field(PCM.sample_rate, ge=8_000, le=48_000)
    """OpenAI's is always 24,000."""

    def format(self) -> AudioFormat:
        return replace(PCM, sample_rate=self.rate)


class _G711(_Fields):
    type: Literal["audio/pcmu", "audio/pcma"]
    rate: Literal[8_000] = 8_000

    def format(self) -> AudioFormat:
        return next(known for known in FORMATS if known.name == self.type)


class _Input(_Fields):
    format: Annotated[_Pcm | _G711, Field(discriminator="type")] | None = None
    transcription: _Transcription | None = None
    turn_detection: _Detection = None
    noise_reduction: _NoiseReduction | None = None

    def settings(self) -> dict[str, Any]:
        settings = self.transcription.settings() if self.transcription else {}
        if self.given("turn_detection"):
            settings["turn_detection"] = self.turn_detection.detection() if self.turn_detection else None
        if self.format:
            settings["format"] = self.format.format()
        return settings


class _Audio(_Fields):
    input: _Input | None = None


class _Session(_Fields):
    refused: ClassVar[tuple[str, ...]] = (*_OF_AUDIO, "input_audio_format", "input_audio_transcription")
    type: Literal["transcription"] = "transcription"
    audio: _Audio | None = None
    include: _Include = None

    def settings(self) -> dict[str, Any]:
        settings = self.audio.input.settings() if self.audio and self.audio.input else {}
        return settings | ({"logprobs": bool(self.include)} if self.given("include") else {})


class _OlderSession(_Fields):
    refused: ClassVar[tuple[str, ...]] = (*_OF_AUDIO, "audio")
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


_Model = TypeVar("_Model", bound=_Fields)

_TAGS = {"server_vad", "semantic_vad", "none", *(known.name for known in FORMATS)}
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
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    raise ApiError(400, sentence_about(param, first), code=code, param=param)
