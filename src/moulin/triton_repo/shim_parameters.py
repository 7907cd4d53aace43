"""What a shim is told when Triton loads it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Self, TypeVar

from moulin.models.engine_choice import EngineChoice
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.service_parameter import read_service
from moulin.triton_repo.streaming_options import StreamingOptions

_Options = TypeVar("_Options", OfflineOptions, StreamingOptions)


@dataclass(frozen=True)
class ShimParameters(Generic[_Options]):
    """The parameters of config.pbtxt, and what both shims make of them."""

    options: _Options
    version: Path
    """The version's folder, to which the paths in `options` are relative."""
    values: Mapping[str, str]
    """All parameters as they stand there, those of the networks of an ensemble among them."""

    @classmethod
    def read(cls, args: Mapping[str, str], options: type[_Options]) -> Self:
        """From the `args` of the python backend's `initialize`. Raises BundleError as `read_service` does."""
        parameters = json.loads(args["model_config"])["parameters"]
        values = {name: value["string_value"] for name, value in parameters.items()}
        model, version = args["model_repository"], args["model_version"]
        return cls(read_service(options, values, f"{model}/config.pbtxt"), Path(model, version), values)

    @property
    def encoder(self) -> Path:
        return self.version / self.options.encoder

    @property
    def threads(self) -> int:
        """CPU threads of all instances together."""
        return self.options.engine.threads or len(os.sched_getaffinity(0))

    @property
    def engine(self) -> EngineChoice:
        """What this instance opens. An offline call may use all threads, since other instances may be idle.

        With PyTorch it may use this instance's share: its threads wait for each other by spinning, and those of several
        processes would do it on the same cores. So may streams, which always have other calls beside them.
        """
        chosen = self.options.engine
        share = max(1, self.threads // self.options.instances)
        shared = chosen.kind == "torch" or isinstance(self.options, StreamingOptions)
        return replace(
            chosen,
            threads=share if shared else self.threads,
            workers=share,
            plan=self.version / chosen.plan if chosen.plan else None,
        )
