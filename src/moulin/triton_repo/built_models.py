"""What a repository offers that `build_*` wrote, read back from its config.pbtxt files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from moulin.errors import BundleError
from moulin.triton_repo import contract


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model with the public contract; the parts of an ensemble are none."""

    name: str
    streaming: bool
    device: str
    engine: str | None
    """None in the layout `ensemble`, whose parts have engines."""
    precision: str | None
    """None where the configuration does not say it."""


def built_models(repository: Path) -> list[BuiltModel]:
    """The models of `repository`, offline ones first. Raises BundleError where there is none that moulin wrote."""
    if not repository.is_dir():
        raise BundleError(f"There is no repository at {repository}", hint="moulin repo build MODEL --to DIR writes one")
    configs = sorted(repository.glob("*/config.pbtxt"))
    if not configs:
        what = "holds no Triton models: expected NAME/config.pbtxt" if any(repository.iterdir()) else "is empty"
        raise BundleError(f"{repository} {what}", hint="moulin repo build MODEL --to DIR writes one")
    models = [_model(config) for path in configs if _is_public(config := _read(path))]
    if not models:
        raise BundleError(
            f"{repository} holds {len(configs)} Triton models, and none that moulin wrote (with {contract.WAV} and "
            f"{contract.TRANSCRIPTS})",
            hint="tritonserver --model-repository serves other models",
        )
    return sorted(models, key=lambda model: (model.streaming, model.name))


def _read(path: Path) -> Any:
    try:
        config = text_format.Parse(path.read_text(), pb.ModelConfig())
    except (OSError, ValueError, text_format.ParseError) as error:
        raise BundleError(f"{path} is no configuration of a Triton model: {str(error).splitlines()[0]}") from error
    config.name = config.name or path.parent.name
    return config


def _is_public(config: Any) -> bool:
    return contract.WAV in {one.name for one in config.input} and contract.TRANSCRIPTS in {
        one.name for one in config.output
    }


def _model(config: Any) -> BuiltModel:
    values = {name: value.string_value for name, value in config.parameters.items()}
    return BuiltModel(
        name=config.name,
        streaming=config.HasField("sequence_batching"),
        device=values.get("device") or _device(config),
        engine=values.get("engine") or None,
        precision=values.get("precision") or None,
    )


def _device(config: Any) -> str:
    for group in config.instance_group:
        if group.kind == pb.ModelInstanceGroup.KIND_GPU:
            return f"cuda:{group.gpus[0]}" if group.gpus else "cuda"
    return "cpu"
