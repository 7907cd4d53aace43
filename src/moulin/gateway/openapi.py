"""What the gateway offers over HTTP, as an OpenAPI 3.1 document.

`tests/gateway/test_openapi.py` compares it with the routes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.routing import BaseRoute, Route, WebSocketRoute

import moulin
from moulin.gateway.client_secrets import FEWEST_SEC, MOST_SEC, USUAL_SEC
from moulin.gateway.deepgram.errors import is_deepgrams
from moulin.gateway.transcription_request import LISTS, TranscriptionRequest

_JSON = "application/json"

LIVE_SPEECH = "Live speech"
TAGS = ("Recordings", LIVE_SPEECH, "Models", "Operation")
"""In the order in which they are read."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a path. `answers` is the content by media type, `body` the request's."""

    tag: str
    summary: str
    answers: dict[str, Any]
    body: dict[str, Any] | None = None
    description: str = ""
    open_to_all: bool = False


def _object(required: Iterable[str] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required]}


def _of(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_STRING, _NUMBER, _INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
_TEXT = {"text/plain": {"schema": _STRING}}

_SCHEMAS: dict[str, Any] = {
    "Error": _object(
        ("error",),
        error=_object(
            ("message", "type"),
            message=_STRING,
            type=_STRING,
            param={"type": ["string", "null"]},
            code={"type": ["string", "null"]},
        ),
    ),
    "DeepgramError": _object(
        ("err_code", "err_msg", "request_id"), err_code=_STRING, err_msg=_STRING, request_id=_STRING
    ),
    "Model": _object(
        ("id", "object", "created", "owned_by"),
        id=_STRING,
        object={"const": "model"},
        created=_INTEGER,
        owned_by=_STRING,
        served_as={"type": "string", "description": "The name in Triton; `id` may be another."},
        streaming={"type": "boolean", "description": "Whether the model is for live speech."},
        bundle={"type": ["string", "null"], "description": "The folder of the model's files."},
        languages={"type": "array", "items": _STRING, "description": "Codes that the folder's name has."},
        sample_rate=_INTEGER,
        description={"type": ["string", "null"], "description": "What the bundled models are for."},
        hotwords={"type": "boolean", "description": "Whether requests may have `keywords[]`."},
        alternatives={"type": "boolean", "description": "Whether requests may have `nbest`."},
    ),
    "Models": _object(("object", "data"), object={"const": "list"}, data={"type": "array", "items": _of("Model")}),
    "Transcription": _object(
        ("text",),
        text=_STRING,
        usage=_object(type={"const": "duration"}, seconds=_NUMBER),
        logprobs={"type": "array", "items": _object(token=_STRING, logprob=_NUMBER)},
        warnings={"type": "array", "items": _STRING},
        duration={"type": "number", "description": "Of `verbose_json` and `diarized_json`."},
        language={"type": "string", "description": "Of `verbose_json`."},
        words={"type": "array", "items": _object(word=_STRING, start=_NUMBER, end=_NUMBER, confidence=_NUMBER)},
        segments={"type": "array", "items": _object(text=_STRING, start=_NUMBER, end=_NUMBER, speaker=_STRING)},
    ),
    "ClientSecret": _object(
        ("value", "expires_at", "session"), value=_STRING, expires_at=_INTEGER, session={"type": "object"}
    ),
}

_FORM_NOTE = (
    "Fields that change nothing are named in the answer's header `X-Moulin-Ignored`; `--strict-fields` refuses them. "
    "What is missing of a recording or was chosen stands in `X-Moulin-Warnings`, a JSON array of sentences."
)


def _form() -> dict[str, Any]:
    """The form of a transcription, with the names that clients send."""
    schema = TranscriptionRequest.model_json_schema()
    fields = {"file": {"type": "string", "format": "binary", "description": "The recording, of any container."}}
    for name, field in schema["properties"].items():
        if name != "others":
            fields[f"{name}[]" if name in LISTS else name] = {key: field[key] for key in field if key != "title"}
    return {"multipart/form-data": {"schema": _object(("file", "model"), **fields)}}


def _expires_after() -> dict[str, Any]:
    seconds = {"type": "integer", "minimum": FEWEST_SEC, "maximum": MOST_SEC, "default": USUAL_SEC}
    said = f"`seconds` from now: {FEWEST_SEC} to {MOST_SEC:,}; {USUAL_SEC} without it."
    return {**_object(anchor={"const": "created_at"}, seconds=seconds), "description": said}


def _operations() -> dict[tuple[str, str], Operation]:
    model = {_JSON: {"schema": _of("Model")}}
    transcription = {
        _JSON: {"schema": _of("Transcription")},
        **_TEXT,
        "text/vtt": {"schema": _STRING},
        "text/event-stream": {"schema": _STRING},
    }
    state = {_JSON: {"schema": {"type": "object"}}}
    return {
        ("/v1/audio/transcriptions", "post"): Operation(
            "Recordings", "The transcript of a recording", transcription, _form(), _FORM_NOTE
        ),
        ("/v1/audio/translations", "post"): Operation(
            "Recordings", "Refused: the models write down what they hear, in its language", {}
        ),
        ("/v1/listen", "post"): Operation(
            "Recordings",
            "The transcript of a recording, as Deepgram's clients ask for it",
            state,
            {"*/*": {"schema": {"type": "string", "format": "binary"}}},
        ),
        ("/v2/listen", "get"): Operation("Recordings", "Refused: Deepgram's newer form", {}),
        ("/v2/listen", "post"): Operation("Recordings", "Refused: Deepgram's newer form", {}),
        ("/v1/models", "get"): Operation("Models", "The models", {_JSON: {"schema": _of("Models")}}),
        ("/v1/models/{name}", "get"): Operation("Models", "A model, by any of its names", model),
        ("/v1/realtime/client_secrets", "post"): Operation(
            LIVE_SPEECH,
            "A short-lived key for a browser",
            {_JSON: {"schema": _of("ClientSecret")}},
            {
                _JSON: {
                    "schema": _object(
                        session={"type": "object", "description": "As in `session.update`."},
                        expires_after=_expires_after(),
                    )
                }
            },
        ),
        ("/v1/realtime/transcription_sessions", "post"): Operation(
            LIVE_SPEECH,
            "A short-lived key for a browser, in the older form",
            state,
            {_JSON: {"schema": {"type": "object", "description": "As in `transcription_session.update`."}}},
        ),
        ("/healthz", "get"): Operation("Operation", "Whether the gateway lives", state, open_to_all=True),
        ("/readyz", "get"): Operation("Operation", "Whether a model is ready", state, open_to_all=True),
        ("/metrics", "get"): Operation("Operation", "Metrics for Prometheus", _TEXT),
        ("/openapi.json", "get"): Operation("Operation", "This document", state, open_to_all=True),
        ("/docs", "get"): Operation(
            "Operation", "This document as a page", {"text/html": {"schema": _STRING}}, open_to_all=True
        ),
    }


SOCKETS = {
    "/v1/realtime": "OpenAI's realtime transcription session (docs/realtime.md)",
    "/v1/stream": "Binary PCM in, JSON out (docs/realtime.md)",
    "/v1/listen": "Deepgram's live transcription",
    "/v2/listen": "Refused: Deepgram's newer form",
}
"""WebSockets, which OpenAPI has no words for, by their paths."""


def document(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """The document of an application with these routes; the page's files are left out."""
    routes = list(routes)
    known, paths = _operations(), {}
    for route in routes:
        if not isinstance(route, Route):
            continue
        path = route.path.replace(":path}", "}")
        methods = {method.lower() for method in route.methods or ()} - {"head"}
        found = {method: _described(path, known[path, method]) for method in sorted(methods) if (path, method) in known}
        if found:
            named = [{"name": "name", "in": "path", "required": True, "schema": _STRING}] if "{name}" in path else []
            paths[path] = {**found, **({"parameters": named} if named else {})}
    paths_of_sockets = [route.path for route in routes if isinstance(route, WebSocketRoute)]
    sockets = {path: SOCKETS[path] for path in paths_of_sockets if path in SOCKETS}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "moulin",
            "version": moulin.__version__,
            "description": "Speech recognition: OpenAI's audio API and live speech. The base URL of OpenAI's clients "
            "ends in `/v1`. WebSockets: " + "; ".join(f"`{path}`: {what}" for path, what in sockets.items()) + ".",
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in TAGS],
        "security": [{}, {"key": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "x-websockets": sockets,
    }


def _described(path: str, operation: Operation) -> dict[str, Any]:
    error = _of("DeepgramError" if is_deepgrams(path) else "Error")
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": {
            **({"200": {"description": "The answer", "content": operation.answers}} if operation.answers else {}),
            "default": {"description": "An error", "content": {_JSON: {"schema": error}}},
        },
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": operation.body}
    if operation.open_to_all:
        described["security"] = []
    return described
