"""A server's description of its loaded models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_UNTOLD_LIMIT_SEC = 30.0
"""The limit for repositories of older versions, which do not state it: every model takes at least this."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A moulin model on a server."""

    name: str
    streaming: bool
    max_utterance_sec: float
    """The longest utterance that the model takes; longer recordings are cut. Streams have no limit."""
    uses_hotwords: bool = False
    """Whether requests may have hotwords."""
    bundle: str | None = None
    """The name of the model's folder; None where an earlier moulin wrote the repository, as with the next two."""
    languages: tuple[str, ...] = ()
    """Codes of ISO 639, where the names of its files say so."""
    created: int = 0
    """When the model's files were made, in seconds since 1970."""
    lanes: bool = False
    """Whether it takes bundles of many streams."""
    gives_alternatives: bool = False
    """Whether requests may have `nbest`."""
    engine: str | None = None
    """What runs it; None in the layout `ensemble` too."""
    precision: str | None = None
    """What the encoder's arithmetic is in."""


def ready_models(index: Any) -> list[str]:
    """The names of the models in a `RepositoryIndexResponse` that are ready."""
    return [model.name for model in index.models if model.state == "READY"]


def served_models(responses: Iterable[Any]) -> list[ServedModel]:
    """The moulin models among `ModelConfigResponse`s, sorted by name."""
    return sorted(
        (_served_model(response.config) for response in responses if _is_ours(response.config)),
        key=lambda model: model.name,
    )


def _is_ours(config: Any) -> bool:
    return any(tensor.name == "WAV" for tensor in config.input) and any(
        tensor.name == "RESULT" for tensor in config.output
    )


def _served_model(config: Any) -> ServedModel:
    facts = {name: value.string_value for name, value in config.parameters.items()}
    created = facts.get("created", "")
    return ServedModel(
        config.name,
        config.HasField("sequence_batching"),
        float(facts.get("max_utterance_sec") or _UNTOLD_LIMIT_SEC),
        facts.get("hotwords") == "true",
        facts.get("bundle"),
        tuple(facts.get("languages", "").split()),
        int(created) if created.isascii() and created.isdecimal() else 0,
        has_lanes(config),
        facts.get("alternatives") == "true",
        facts.get("engine"),
        facts.get("precision"),
    )


def has_lanes(config: Any) -> bool:
    """Whether a `ModelConfig` is of a model that takes bundles of many streams."""
    return any(tensor.name == "BUNDLE" for tensor in config.input)


def instances(config: Any) -> int:
    """The number of a model's instances, by its `ModelConfig`."""
    count: int = sum(group.count * max(1, len(group.gpus)) for group in config.instance_group)
    return max(1, count)
