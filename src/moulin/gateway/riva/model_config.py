"""`GetRivaSpeechRecognitionConfig`: the models."""

from __future__ import annotations

from typing import Any

from moulin.gateway.api_error import ApiError
from moulin.gateway.riva.call import Call
from moulin.gateway.riva.messages import ConfigResponse
from moulin.gateway.services import Services

_UNKNOWN_LANGUAGE = "und"
"""BCP 47's tag for a language that is not known: not every model's files say it."""


async def model_config(services: Services, call: Call) -> Any:
    """The `RivaSpeechRecognitionConfigResponse`: the model of the request's name, or all."""
    request = await call.read()
    if request is None:
        raise ApiError(400, "Expected a request, got none")
    models = await services.catalog.models()
    named = [model for model in models if model.name == request.model_name]
    return ConfigResponse(
        model_config=[
            {
                "model_name": model.name,
                "parameters": {
                    "type": "online" if model.streaming else "offline",
                    "language_code": model.languages[0] if model.languages else _UNKNOWN_LANGUAGE,
                },
            }
            for model in named or models
        ]
    )
