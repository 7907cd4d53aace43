"""What the config.pbtxt of every model has."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from moulin.errors import OptionsError

_MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_model_name(name: str) -> None:
    """Raises OptionsError."""
    if not _MODEL_NAME.fullmatch(name):
        raise OptionsError(
            f"Expected a model name of letters, digits, '_', '-' and '.', got {name!r}",
            hint="it is the name of a folder and a part of the HTTP address",
        )


def add_instances(config: Any, count: int, gpu: int | None) -> None:
    """`count` processes, on the CPU or bound to one GPU."""
    group = config.instance_group.add(count=count, kind=pb.ModelInstanceGroup.KIND_CPU)
    if gpu is not None:
        group.kind = pb.ModelInstanceGroup.KIND_GPU
        group.gpus.append(gpu)


def add_parameters(config: Any, parameters: Mapping[str, str]) -> None:
    """What the shim reads when it is loaded."""
    for name, value in parameters.items():
        config.parameters[name].string_value = value
