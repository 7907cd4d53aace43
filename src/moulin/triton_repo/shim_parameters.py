"""The parameters that a shim reads when Triton loads it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Self, TypeVar

from moulin.decoding.hotwords import MOST_SERVER_HOTWORDS, Hotword, given_hotwords
from moulin.models.engine_choice import EngineChoice
from moulin.models.language_model_files import LanguageModelFiles
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.service_parameter import read_service
from moulin.triton_repo.streaming_options import StreamingOptions

_Options = TypeVar("_Options", OfflineOptions, StreamingOptions)


@dataclass(frozen=True)
class ShimParameters(Generic[_Options]):
    """The parameters of config.pbtxt, and values that both shims derive from them."""

    options: _Options
    version: Path
    """The version's folder, to which the paths in `options` are relative."""
    values: Mapping[str, str]
    """All parameters by name, unparsed; those of an ensemble's networks among them."""
    gpu: int | None = None
    """The GPU of this instance; None on the CPU."""

    @classmethod
    def read(cls, args: Mapping[str, str], options: type[_Options]) -> Self:
        """The parameters in the `args` of the backend's `initialize`. Raises BundleError as `read_service` does."""
        parameters = json.loads(args["model_config"])["parameters"]
        values = {name: value["string_value"] for name, value in parameters.items()}
        model, version = args["model_repository"], args["model_version"]
        gpu = int(args["model_instance_device_id"]) if args.get("model_instance_kind") == "GPU" else None
        return cls(read_service(options, values, f"{model}/config.pbtxt"), Path(model, version), values, gpu)

    @property
    def encoder(self) -> Path:
        return self.version / self.options.encoder

    @property
    def hotwords(self) -> tuple[Hotword, ...]:
        """The server's own hotwords. Raises OptionsError where their file is not what it was."""
        if self.options.hotwords is None:
            return ()
        return given_hotwords(str(self.version / self.options.hotwords), MOST_SERVER_HOTWORDS)

    @property
    def lm(self) -> LanguageModelFiles:
        """The files of the server's language model."""
        files = self.options.lm
        return LanguageModelFiles(
            self.version / files.lm if files.lm else None, self.version / files.lodr if files.lodr else None
        )

    @property
    def threads(self) -> int:
        """CPU threads of all instances together."""
        return self.options.engine.threads or len(os.sched_getaffinity(0))

    @property
    def share(self) -> int:
        """Those of one instance."""
        return max(1, self.threads // self.options.num_instances)

    @property
    def engine(self) -> EngineChoice:
        """The engine that this instance opens. An offline call may use all threads, as other instances may be idle.

        With PyTorch a call may use this instance's share only: PyTorch's threads wait for each other by spinning, which
        in several processes on the same cores is slow. So it is for streams, which always have other calls beside them.
        """
        chosen = self.options.engine
        share = self.share
        shared = chosen.kind == "torch" or isinstance(self.options, StreamingOptions)
        return replace(
            chosen,
            device=chosen.device if self.gpu is None or not self.options.gpus else f"cuda:{self.gpu}",
            threads=share if shared else self.threads,
            workers=share,
            plan=self.version / chosen.plan if chosen.plan else None,
        )
