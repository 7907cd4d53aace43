"""The models of a repository that `build_*` wrote, read back from its config.pbtxt files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from moulin.bundle.precision import Precision
from moulin.errors import BundleError
from moulin.models.engine_choice import Engine
from moulin.triton_repo import contract
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.service_parameter import read_service
from moulin.triton_repo.streaming_options import StreamingOptions


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model with the public contract, unlike the parts of an ensemble."""

    name: str
    streaming: bool
    options: OfflineOptions | StreamingOptions
    is_ensemble: bool
    """Whether it is in the layout `ensemble`: then it has no engine of its own."""

    @property
    def engine(self) -> Engine | None:
        return None if self.is_ensemble else self.options.engine.named

    @property
    def device(self) -> str:
        """Several with commas between them."""
        return ",".join(f"cuda:{gpu}" for gpu in self.options.gpus) or self.options.engine.device

    @property
    def precision(self) -> Precision | None:
        return self.options.engine.precision


def built_models(repository: Path) -> list[BuiltModel]:
    """The models of `repository`, offline ones first.

    Raises BundleError where there is none that moulin wrote, or one that an earlier moulin wrote.
    """
    if not repository.is_dir():
        raise BundleError(f"There is no repository at {repository}", hint="moulin repo build MODEL --to DIR writes one")
    configs = sorted(repository.glob("*/config.pbtxt"))
    if not configs:
        what = "holds no Triton models: expected NAME/config.pbtxt" if any(repository.iterdir()) else "is empty"
        raise BundleError(f"{repository} {what}", hint="moulin repo build MODEL --to DIR writes one")
    models = [_model(config, path) for path in configs if _is_public(config := _read(path))]
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


def _model(config: Any, path: Path) -> BuiltModel:
    values = {name: value.string_value for name, value in config.parameters.items()}
    streaming = config.HasField("sequence_batching")
    options: OfflineOptions | StreamingOptions
    if streaming:
        options = read_service(StreamingOptions, values, str(path))
    else:
        options = read_service(OfflineOptions, values, str(path))
    return BuiltModel(config.name, streaming, options, is_ensemble=not options.encoder)
