"""Names of devices: cpu, cuda or cuda:N, and lists of them: cuda:0,cuda:1 or cuda:all."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable

from moulin.errors import EngineError, OptionsError

ALL_GPUS = "cuda:all"

_DEVICE = re.compile(r"cpu|cuda(?::(?P<index>\d+))?")


def gpu_index(device: str) -> int | None:
    """The GPU's number, or None for the CPU. Raises OptionsError where `device` is no device."""
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise OptionsError(f"Expected a device of cpu, cuda or cuda:N, got {device!r}")
    return None if device == "cpu" else int(match["index"] or 0)


def gpu_count() -> int:
    """GPUs that CUDA's driver shows to this process (CUDA_VISIBLE_DEVICES hides others); 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def check_slices(visible: str | None) -> None:
    """`visible` is CUDA_VISIBLE_DEVICES. Raises OptionsError where it names several slices of a GPU (MIG): CUDA shows a
    process the first alone, without a word."""
    slices = [name.strip() for name in (visible or "").split(",") if name.strip().startswith("MIG-")]
    if len(slices) > 1:
        raise OptionsError(
            f"Expected one MIG slice in CUDA_VISIBLE_DEVICES, got {len(slices)}: a process can use the first alone",
            hint="run one `moulin serve` for each, with ports of its own: "
            f"CUDA_VISIBLE_DEVICES={slices[1]} moulin serve MODEL --device cuda --http-port …",
        )


def device_list(devices: str, count_gpus: Callable[[], int] = gpu_count) -> tuple[str, ...]:
    """The devices in a list such as `cuda:0,cuda:1`, or all GPUs for `cuda:all`. One alone keeps its spelling.

    Raises OptionsError where one is no device or occurs twice, and EngineError where there is no GPU for `cuda:all`.
    """
    if devices.strip() == ALL_GPUS:
        count = count_gpus()
        if not count:
            raise EngineError(f"Expected a GPU for {ALL_GPUS}, got none", hint="nvidia-smi lists GPUs")
        return tuple(f"cuda:{number}" for number in range(count))
    named = tuple(device.strip() for device in devices.split(","))
    try:
        indices = [gpu_index(device) for device in named]
    except OptionsError:
        raise OptionsError(
            f"Expected a device of cpu, cuda or cuda:N, a list such as cuda:0,cuda:1, or {ALL_GPUS}, got {devices!r}"
        ) from None
    if len(set(indices)) < len(indices):
        raise OptionsError(f"Expected every device once, got {devices!r}")
    return named
