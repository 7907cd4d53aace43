"""What a shim is told when Triton loads it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from moulin.bundle.files import Precision
from moulin.models.engines import Engine


@dataclass(frozen=True)
class ShimParameters:
    """The parameters of config.pbtxt, and what both shims make of them."""

    values: Mapping[str, Any]
    encoder: Path
    engine: Engine | None
    device: str
    threads: int
    """CPU threads of all instances together."""
    instances: int
    plan: Path | None = None
    """The engine, for TensorRT."""
    precision: Precision | None = None
    """What runs; None in a repository that was written before it said so for streams."""

    @classmethod
    def read(cls, args: Mapping[str, str]) -> Self:
        """From the `args` of the python backend's `initialize`."""
        parameters = json.loads(args["model_config"])["parameters"]
        values = {name: value["string_value"] for name, value in parameters.items()}
        version = Path(args["model_repository"], args["model_version"])
        return cls(
            values=values,
            encoder=version / values["encoder"],
            engine=values["engine"] or None,
            precision=values.get("precision") or None,
            device=values["device"],
            threads=int(values["threads"] or len(os.sched_getaffinity(0))),
            instances=int(values["instances"]),
            plan=version / values["plan"] if values.get("plan") else None,
        )

    @property
    def call_threads(self) -> int:
        """CPU threads of one call: all, where other instances may be idle. With PyTorch this instance's share: its
        threads wait for each other by spinning, and those of several processes would do it on the same cores."""
        return self.workers if self.engine == "torch" else self.threads

    @property
    def workers(self) -> int:
        """This instance's share of the threads."""
        return max(1, self.threads // self.instances)
