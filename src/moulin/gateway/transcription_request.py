"""The fields of `POST /v1/audio/transcriptions`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData

from moulin.audio.selection import Selection
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.gateway.api_error import ApiError
from moulin.gateway.prompt_words import spoken_hotwords
from moulin.quoting import quoted

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]


class TranscriptionRequest(BaseModel):
    """OpenAI's fields, and moulin's own `method`, `beam`, `blank_penalty`, `hotwords_score`, `nbest`, `channels` and
    `track`. Unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    response_format: ResponseFormat = "json"
    timestamp_granularities: tuple[Literal["word", "segment"], ...] = Field((), alias="timestamp_granularities[]")
    stream: bool = False
    language: str | None = None
    """Accepted and unused; a model recognises the language that it was trained on."""
    prompt: str | None = None
    """A list of words and phrases is hotwords; other prompts are accepted and unused."""
    keywords: tuple[str, ...] = Field((), alias="keywords[]")
    """Hotwords."""
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Accepted and unused; a transducer's search is not random."""
    chunking_strategy: str | None = None
    """Accepted and unused; long recordings are always cut at silences."""
    include: tuple[Literal["logprobs"], ...] = Field((), alias="include[]")
    method: str | None = None
    beam: int | None = None
    blank_penalty: float | None = None
    hotwords_score: float | None = None
    nbest: int | None = None
    channels: str = "mix"
    track: str | None = None

    @property
    def selection(self) -> Selection:
        """The channels and the track to transcribe. Raises OptionsError."""
        return Selection(self.channels, self.track)

    def decoding_changes(self, *, with_prompt: bool) -> dict[str, Any]:
        """The decoding options in the request; the words of its prompt are among them `with_prompt`. Raises
        OptionsError."""
        names = {"method", "beam", "blank_penalty", "hotwords_score", "nbest"}
        chosen = self.model_dump(include=names, exclude_none=True)
        if words := spoken_hotwords(self.keywords, self.prompt if with_prompt else None):
            chosen["hotwords"] = words
        DecodingOptions().updated(chosen)
        return chosen


def transcription_request(form: FormData) -> TranscriptionRequest:
    """The fields of `form` except the file. Raises ApiError 400 for an invalid one."""
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        _expect_text(name)
        if name == "file":
            continue
        _expect_text(value)
        if name in ("timestamp_granularities", "include", "keywords"):
            name = f"{name}[]"
        if name.endswith("[]"):
            fields.setdefault(name, []).append(value)
        else:
            fields[name] = value
    try:
        request = TranscriptionRequest.model_validate(fields)
    except ValidationError as error:
        raise _refusal(error) from None
    _check_together(request)
    return request


def _expect_text(value: object) -> None:
    """Raise ApiError for half of a surrogate pair: the client names the charset of its form, and some decode to it."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ApiError(
                400,
                f"Expected a form in UTF-8, got {quoted(value)}",
                code="invalid_value",
                hint="leave out its charset",
            ) from None


def _check_together(request: TranscriptionRequest) -> None:
    if request.timestamp_granularities and request.response_format != "verbose_json":
        raise ApiError(
            400,
            f"Expected response_format verbose_json with timestamp_granularities, got {request.response_format}",
            param="timestamp_granularities",
        )
    if (request.nbest or 1) > 1 and request.response_format != "verbose_json":
        raise ApiError(
            400,
            f"Expected response_format verbose_json with nbest, got {request.response_format}",
            param="nbest",
        )
    if request.stream and request.response_format not in ("json", "text"):
        raise ApiError(
            400,
            f"Expected response_format json with stream=true, whose events hold text, got {request.response_format}",
            param="response_format",
        )

    try:
        selection = request.selection
    except OptionsError as error:
        param = "track" if error.message.startswith("Expected track") else "channels"
        raise ApiError(400, error.message, code="invalid_value", param=param) from None
    if request.stream and not selection.is_single:
        raise ApiError(
            400,
            "Expected stream=false with channels=each or track=all, whose words are put in order at the end",
            param="stream",
        )


def _refusal(error: ValidationError) -> ApiError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if first["type"] == "missing":
        return ApiError(
            400, f"Expected a field {quoted(name)}, got none", code="missing_required_parameter", param=name
        )
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"Unknown parameter: {quoted(name)}", code="unknown_parameter", param=name)
    wanted = first["msg"].removeprefix("Input should be ")
    return ApiError(
        400, f"Expected {name} to be {wanted}, got {quoted(first['input'])}", code="invalid_value", param=name
    )
