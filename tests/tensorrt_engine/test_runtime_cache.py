"""The file of TensorRT-RTX's runtime cache, with a recorded fake of the engine: nothing of it runs without a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from moulin.tensorrt_engine.runtime_cache import RuntimeCache, cache_file

CPU = torch.device("cpu")


def engine(kernels: list[bytes], read: list[bytes]) -> Any:
    def keep(blob: bytes) -> bool:
        read.append(blob)
        return True

    cache = SimpleNamespace(serialize=lambda: b"".join(kernels), deserialize=keep)
    config = SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda given: given is cache)
    return SimpleNamespace(create_runtime_config=lambda: config)


def test_the_file_grows_with_the_cache_and_is_read_again(tmp_path: Path) -> None:
    plan = tmp_path / "encoder.plan"
    kernels, read = [b"one"], list[bytes]()
    cache = RuntimeCache.of(engine(kernels, read), plan, CPU)
    assert cache is not None
    cache.after_pass()
    file = cache_file(plan, CPU)
    assert (file.name, file.read_bytes(), read) == ("encoder.cpu.cache", b"one", [])
    kernels.append(b"two")
    cache.after_pass()
    assert file.read_bytes() == b"onetwo"
    RuntimeCache.of(engine(kernels, read), plan, CPU)
    assert read == [b"onetwo"]


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    cache = RuntimeCache.of(engine([b"one"], []), tmp_path / "none" / "encoder.plan", CPU)
    assert cache is not None
    cache.after_pass()


def test_tensorrt_has_no_such_cache(tmp_path: Path) -> None:
    assert RuntimeCache.of(SimpleNamespace(), tmp_path / "encoder.plan", CPU) is None
