"""Models for the names that clients give."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from moulin.client.served_model import ServedModel
from moulin.errors import OptionsError
from moulin.gateway.api_error import ApiError
from moulin.gateway.model_catalog import ModelCatalog
from moulin.gateway.settings import gateway_settings
from moulin.gateway.triton_servers import TritonServers


class Served:
    """The part of `TritonServers` that is asked."""

    def __init__(self, **models: bool) -> None:
        """Name to whether it is a streaming model."""
        self._models = {name: ServedModel(name, streaming, 30.0) for name, streaming in models.items()}

    def say(self, **facts: Any) -> None:
        self._models = {name: replace(model, **facts) for name, model in self._models.items()}

    async def models(self) -> dict[str, ServedModel]:
        return self._models


BOTH = {"transducer": False, "transducer_streaming": True, "other": False}


def find(models: dict[str, bool], kind: str, name: str | None, **settings: Any) -> str:
    catalog = ModelCatalog(cast(TritonServers, Served(**models)), gateway_settings(**settings))
    found: ServedModel = asyncio.run(getattr(catalog, kind)(name))
    return found.name


@pytest.mark.parametrize(
    ("models", "kind", "name", "found"),
    [
        (BOTH, "offline", "other", "other"),
        (BOTH, "offline", None, "transducer"),
        (BOTH, "offline", "whisper-1", "transducer"),
        (BOTH, "streaming", "gpt-4o-transcribe", "transducer_streaming"),
        (BOTH, "streaming", "transducer", "transducer_streaming"),
        (BOTH, "streaming", "transducer_streaming", "transducer_streaming"),
        ({"transducer": True}, "streaming", None, "transducer"),
        ({"whisper-1": False, "transducer": False}, "offline", "whisper-1", "whisper-1"),
        ({"english": False}, "offline", "whisper-1", "english"),
        ({"english": False, "live": True}, "streaming", None, "live"),
    ],
)
def test_found(models: dict[str, bool], kind: str, name: str | None, found: str) -> None:
    assert find(models, kind, name) == found


@pytest.mark.parametrize(
    ("models", "name", "found"),
    [
        (BOTH, None, "transducer"),
        (BOTH, "whisper-1", "transducer"),
        (BOTH, "transducer_streaming", "transducer_streaming"),
        ({"transducer": True}, None, "transducer"),
        ({"transducer": True}, "whisper-1", "transducer"),
        ({"live": True}, None, "live"),
        ({"live": True, "english": False}, "whisper-1", "english"),
    ],
)
def test_a_streaming_model_hears_recordings_where_it_is_named_or_alone(
    models: dict[str, bool], name: str | None, found: str
) -> None:
    assert find(models, "for_recordings", name) == found


def test_the_default_model_may_be_another() -> None:
    assert find(BOTH, "offline", "whisper-1", default_model="other") == "other"


ALIASES = ("my-name", "live=transducer_streaming", "gpt-transcribe=other", "gone=nothing")


@pytest.mark.parametrize(
    ("kind", "name", "found"),
    [
        ("offline", "my-name", "transducer"),
        ("streaming", "my-name", "transducer_streaming"),
        ("streaming", "live", "transducer_streaming"),
        ("for_recordings", "live", "transducer_streaming"),
        ("for_recordings", "gpt-transcribe", "other"),
        ("for_recordings", "gpt-4o-transcribe", "transducer"),
        ("called", "live", "transducer_streaming"),
        ("called", "whisper-1", "transducer"),
        ("called", "gpt-realtime-whisper", "transducer_streaming"),
    ],
)
def test_the_operators_aliases(kind: str, name: str, found: str) -> None:
    assert find(BOTH, kind, name, model_aliases=ALIASES) == found


def test_an_alias_of_a_model_that_is_not_served() -> None:
    with pytest.raises(ApiError, match="no model 'gone'"):
        find(BOTH, "called", "gone", model_aliases=ALIASES)


def test_aliases_that_mean_nothing_are_refused() -> None:
    for alias in ("", "=model", "name="):
        with pytest.raises(OptionsError, match="Expected an alias NAME or NAME=MODEL"):
            gateway_settings(model_aliases=(alias,))


@pytest.mark.parametrize(
    ("models", "kind", "name", "message"),
    [
        (
            BOTH,
            "offline",
            "nobody",
            "'nobody' for recordings (hint: the models for recordings are tra",
        ),
        (
            BOTH,
            "streaming",
            "other",
            "'other' for live streams; 'other' is for recordings (hint: the",
        ),
        (
            {"a": False, "b": False},
            "offline",
            "whisper-1",
            "'whisper-1' for recordings (hint: the mod",
        ),
        (
            {"a": False},
            "streaming",
            None,
            "'transducer' for live streams (hint: no model for live st",
        ),
        (
            {},
            "offline",
            None,
            "'transducer' for recordings (hint: no model for recordings is served)",
        ),
    ],
)
def test_not_found(models: dict[str, bool], kind: str, name: str | None, message: str) -> None:
    with pytest.raises(ApiError) as caught:
        find(models, kind, name)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert str(caught.value).startswith(f"There is no model {message}")


@pytest.mark.parametrize(
    ("said", "languages"), [((), ("zh",)), (("en", "de"), ("en", "de")), (("any",), ()), (("en", "any"), ())]
)
def test_the_operator_knows_what_models_hear(said: tuple[str, ...], languages: tuple[str, ...]) -> None:
    served = Served(transducer=False)
    served.say(languages=("zh",))
    catalog = ModelCatalog(cast(TritonServers, served), gateway_settings(model_languages=said))
    assert asyncio.run(catalog.offline(None)).languages == languages
    assert [model.languages for model in asyncio.run(catalog.models())] == [languages]


def test_languages_that_are_no_codes_are_refused() -> None:
    for code in ("", "english", "EN", "e1é"):
        with pytest.raises(OptionsError, match="Expected languages as codes"):
            gateway_settings(model_languages=(code,))
