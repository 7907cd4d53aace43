"""The fields of `POST /v1/audio/transcriptions`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import FormData

from moulin.audio.selection import Selection
from moulin.client.served_model import ServedModel
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.gateway.api_error import ApiError
from moulin.gateway.form_fields import form_fields
from moulin.gateway.prompt_words import prompt_words, spoken_hotwords
from moulin.gateway.spoken_languages import check_languages
from moulin.gateway.validation_sentences import sentence_about
from moulin.quoting import quoted

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]

LISTS = (
    "timestamp_granularities",
    "include",
    "keywords",
    "languages",
    "known_speaker_names",
    "known_speaker_references",
)
_OWN = ("method", "beam", "blank_penalty", "hotwords_score", "nbest", "channels", "track")
_TRANSLATIONS = ("translate", "translation", "target_language", "to_language")
_SPEAKERS = ("diarize", "diarization", "speaker_labels", "enable_diarization", "enable_speaker_diarization")
_OFF = ("false", "0", "no", "off", "none", "null")


class TranscriptionRequest(BaseModel):
    """OpenAI's fields, and moulin's own `method`, `beam`, `blank_penalty`, `hotwords_score`, `nbest`, `channels` and
    `track`.

    `others` are the names of further fields, which change nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    """A name of `GET /v1/models`, or one of OpenAI's."""
    response_format: ResponseFormat = "json"
    """`diarized_json` with `channels=each` or `track=all`: speakers are channels."""
    timestamp_granularities: tuple[Literal["word", "segment"], ...] = ()
    """With `verbose_json`."""
    stream: bool = False
    """Server-sent events as the recording is heard; with `json`, `text` or `verbose_json`."""
    language: str | None = None
    """Compared with what the model hears, where that is known."""
    languages: tuple[str, ...] = ()
    """Likewise: one of them is to be the model's."""
    prompt: str | None = None
    """A list of words and phrases is hotwords; other prompts are accepted and unused."""
    keywords: tuple[str, ...] = ()
    """Hotwords."""
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Accepted and unused; a transducer's search is not random."""
    chunking_strategy: str | dict[str, str] | None = None
    """Accepted and unused; long recordings are always cut at silences."""
    known_speaker_names: tuple[str, ...] = ()
    """Accepted and unused; no voice is known."""
    known_speaker_references: tuple[str, ...] = ()
    """Accepted and unused."""
    include: tuple[Literal["logprobs", "peaks"], ...] = ()
    """`logprobs`: one entry a word. `peaks`, moulin's own: of the waveform, in the events of `verbose_json`."""
    method: str | None = None
    """moulin's own: `greedy` or `modified_beam_search`."""
    beam: int | None = None
    """moulin's own: hypotheses of modified beam search."""
    blank_penalty: float | None = None
    """moulin's own: subtracted from the score of blank."""
    hotwords_score: float | None = None
    """moulin's own: the bonus of each token of a hotword."""
    nbest: int | None = None
    """moulin's own: up to so many texts, with `verbose_json`."""
    channels: str = "mix"
    """moulin's own: `mix`, `left`, `right`, a number, or `each`."""
    track: str | None = None
    """moulin's own: a number, or `all`."""
    others: tuple[str, ...] = ()

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

    def ignored(self, model: ServedModel) -> Iterator[str]:
        """The names of fields that change nothing with this model. Raises ApiError for a language that it does not
        hear."""
        yield from self.others
        for name, said in (("language", (self.language,) if self.language else ()), ("languages", self.languages)):
            if said and not check_languages(said, model.languages, param=name):
                yield name
        if self.prompt and not (model.uses_hotwords and prompt_words(self.prompt)):
            yield "prompt"
        if self.temperature:
            yield "temperature"
        if self.chunking_strategy not in (None, "auto"):
            yield "chunking_strategy"
        if self.timestamp_granularities and self.response_format != "verbose_json":
            yield "timestamp_granularities"
        yield from (name for name in ("known_speaker_names", "known_speaker_references") if getattr(self, name))


_KNOWN = tuple(name for name in TranscriptionRequest.model_fields if name != "others")
_SINGLE = frozenset(_KNOWN).difference(LISTS)


def transcription_request(form: FormData, address: Sequence[tuple[str, str]] = ()) -> TranscriptionRequest:
    """The fields of `form` except the file; those in the `address` change nothing. Raises ApiError 400 for an invalid
    one, and for one in the address that would change the result in the form."""
    fields = form_fields(form.multi_items(), LISTS, single=_SINGLE)
    others = tuple(name for name in fields if name not in _KNOWN)
    for name in others:
        _check_unknown(name, fields.pop(name))
    elsewhere = form_fields(address, LISTS)
    for name, value in elsewhere.items():
        if name not in _KNOWN:
            _check_unknown(name, value)
        elif fields.get(name) != value:
            raise ApiError(
                400,
                f"Expected {name} in the form, got it in the address",
                code="invalid_value",
                param=name,
                hint="curl sends it with -F, OpenAI's clients as an argument or in extra_body",
            )
    others += tuple(name for name in elsewhere if name not in (*_KNOWN, *others))
    try:
        request = TranscriptionRequest.model_validate({**fields, "others": others})
    except ValidationError as error:
        raise _refusal(error) from None
    _check_together(request)
    return request


def _check_unknown(name: str, value: Any) -> None:
    """Refuse a field that asks for another result than a transcript, or is moulin's own, misspelt."""
    asks = not (isinstance(value, str) and value.lower() in _OFF)
    if (name in _TRANSLATIONS and asks) or (name == "task" and value != "transcribe"):
        raise ApiError(
            400,
            f"Expected a transcription, got {quoted(name)}: the models here write down what they hear, in its language",
            code="unsupported_value",
            param=name,
        )
    if name in _SPEAKERS and asks:
        raise ApiError(
            400,
            f"Expected a transcription of all that is said, got {quoted(name)}: nobody's voice is told from another's",
            code="unsupported_value",
            param=name,
            hint="where each speaker has a channel, ask for channels=each",
        )
    if meant := get_close_matches(name, _OWN, n=1, cutoff=0.8):
        raise ApiError(
            400,
            f"Unknown parameter: {quoted(name)}",
            code="unknown_parameter",
            param=name,
            hint=f"did you mean {meant[0]}?",
        )


def _check_together(request: TranscriptionRequest) -> None:
    if (request.nbest or 1) > 1 and request.response_format != "verbose_json":
        raise ApiError(
            400,
            f"Expected response_format verbose_json with nbest, got {request.response_format}",
            param="nbest",
        )
    if request.stream and request.response_format not in ("json", "text", "verbose_json"):
        raise ApiError(
            400,
            "Expected response_format json, text or verbose_json with stream=true, whose events hold text, got "
            f"{request.response_format}",
            param="response_format",
        )
    if "peaks" in request.include and not (request.stream and request.response_format == "verbose_json"):
        raise ApiError(
            400,
            "Expected stream=true and response_format verbose_json with include[]=peaks",
            code="unsupported_value",
            param="include",
        )
    try:
        selection = request.selection
    except OptionsError as error:
        param = "track" if error.message.startswith("Expected track") else "channels"
        raise ApiError(400, error.message, code="invalid_value", param=param) from None
    if request.stream and not selection.is_single and request.response_format != "verbose_json":
        raise ApiError(
            400,
            "Expected stream=false with channels=each or track=all, whose words are put in order at the end",
            param="stream",
            hint="response_format verbose_json says which channel the words of each event are of",
        )
    if request.response_format == "diarized_json":
        _check_speakers(request, selection)


def _check_speakers(request: TranscriptionRequest, selection: Selection) -> None:
    """Speakers are channels or tracks; voices are not told apart."""
    if selection.is_single:
        raise ApiError(
            400,
            "Expected channels=each or track=all with diarized_json: speakers are told apart by their channels here",
            code="unsupported_value",
            param="response_format",
            hint="OpenAI's clients send it as extra_body={'channels': 'each'}",
        )
    for name in ("known_speaker_names", "known_speaker_references"):
        if getattr(request, name):
            raise ApiError(
                400,
                f"Expected no {name} with diarized_json: a speaker is a channel here, and no voice is known",
                code="unsupported_value",
                param=name,
                hint="leave it out; the speakers are A, B, … in the order of the channels",
            )


def _refusal(error: ValidationError) -> ApiError:
    first = error.errors()[0]
    name = str(first["loc"][0])
    code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
    return ApiError(400, sentence_about(name, first), code=code, param=name)
