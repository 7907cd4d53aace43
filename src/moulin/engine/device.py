"""Names of devices: cpu, cuda or cuda:N."""

from __future__ import annotations

import re

from moulin.errors import OptionsError

_DEVICE = re.compile(r"cpu|cuda(?::(?P<index>\d+))?")


def gpu_index(device: str) -> int | None:
    """The GPU's number, or None for the CPU. Raises OptionsError where `device` is no device."""
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise OptionsError(f"Expected a device of cpu, cuda or cuda:N, got {device!r}")
    return None if device == "cpu" else int(match["index"] or 0)
