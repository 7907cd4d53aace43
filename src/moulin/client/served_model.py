"""What a server says of the models that it has loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_UNTOLD_LIMIT_SEC = 30.0
"""For a repository that was written before moulin told the limit: no model takes less."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of moulin's, as a server offers it."""

    name: str
    streaming: bool
    max_utterance_sec: float
    """The longest piece that the model takes at once; longer recordings are cut. Streams have no limit."""


def ready_models(index: Any) -> list[str]:
    """The names in a `RepositoryIndexResponse` that are ready."""
    return [model.name for model in index.models if model.state == "READY"]


def served_models(responses: Iterable[Any]) -> list[ServedModel]:
    """Those of moulin's among the models of `ModelConfigResponse`s, by name."""
    return sorted(
        (_served_model(response.config) for response in responses if _is_ours(response.config)),
        key=lambda model: model.name,
    )


def _is_ours(config: Any) -> bool:
    return any(tensor.name == "WAV" for tensor in config.input) and any(
        tensor.name == "RESULT" for tensor in config.output
    )


def _served_model(config: Any) -> ServedModel:
    limit = config.parameters["max_utterance_sec"].string_value if "max_utterance_sec" in config.parameters else ""
    return ServedModel(config.name, config.HasField("sequence_batching"), float(limit) if limit else _UNTOLD_LIMIT_SEC)
