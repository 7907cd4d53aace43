"""TensorRT-RTX's runtime cache: the kernels that it compiles for the GPU when a plan first runs, in a file beside the
plan, so that the next process starts without compiling."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


class RuntimeCache:
    """The cache of one plan on one GPU. `config` is for `create_execution_context`."""

    def __init__(self, config: Any, file: Path) -> None:
        """`config` is the engine's runtime configuration. The content of `file` is used if it is of this GPU, driver
        and version, which TensorRT-RTX checks itself; else the cache begins empty."""
        self.config, self._file = config, file
        self._cache = config.create_runtime_cache()
        with suppress(OSError):
            self._cache.deserialize(file.read_bytes())
        config.set_runtime_cache(self._cache)
        self._passes = 0
        self._saved = file.stat().st_size if file.is_file() else 0

    @classmethod
    def of(cls, engine: Any, plan: Path, device: torch.device) -> RuntimeCache | None:
        """The cache of `engine`, which was loaded from `plan`; None for TensorRT, which compiles when it builds."""
        make = getattr(engine, "create_runtime_config", None)
        config = None if make is None else make()
        if config is None or not hasattr(config, "create_runtime_cache"):
            return None
        return cls(config, cache_file(plan, device))

    def after_pass(self) -> None:
        """Count a pass of the plan; after passes 1, 2, 4, 8, ... the file is written if the cache has grown.

        Kernels are compiled for the shapes that come, ever more rarely. A folder that cannot be written costs later
        processes time, and nothing else.
        """
        self._passes += 1
        if self._passes & (self._passes - 1):
            return
        content = bytes(self._cache.serialize())
        if len(content) <= self._saved:
            return
        self._saved = len(content)
        new = self._file.with_suffix(f".{secrets.token_hex(4)}.new")  # another process may write the same
        try:
            new.write_bytes(content)
            new.replace(self._file)
        except OSError:
            with suppress(OSError):
                new.unlink()


def cache_file(plan: Path, device: torch.device) -> Path:
    """The cache's file: beside the plan itself where `plan` is a link, and named by the kind of GPU."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    words = "".join(letter if letter.isalnum() else "-" for letter in gpu)
    whole = plan.resolve()
    return whole.with_name(f"{whole.stem}.{words}.cache")
