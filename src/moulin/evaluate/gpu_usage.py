"""Usage of the GPUs during a measurement: nvidia-smi, left running."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from typing import IO, Any

_QUERY = "index,utilization.gpu,memory.used,power.draw"
_INTERVAL_MS = 500


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """The usage of one GPU: the share of time in which any kernel ran, and the memory of all processes on it."""

    index: int
    utilization_percent: float
    peak_memory_mib: float
    power_watts: float | None

    def rounded(self) -> GpuUsage:
        """The usage with rounded values, for a report."""
        watts = None if self.power_watts is None else round(self.power_watts, 1)
        return GpuUsage(self.index, round(self.utilization_percent, 1), round(self.peak_memory_mib), watts)


class GpuWatch:
    """Samples from `start` to `stop`, which returns the figures; none where there is no nvidia-smi."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[Any] | None = None

    def start(self) -> None:
        if shutil.which("nvidia-smi") is None:
            return
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        self._process = subprocess.Popen(
            ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits", f"--loop-ms={_INTERVAL_MS}"],
            stdout=self._output,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> list[GpuUsage]:
        if self._process is None or self._output is None:
            return []
        self._process.terminate()
        self._process.wait()
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").splitlines()
        self._output.close()
        self._process = self._output = None
        return summarize(lines)


def summarize(lines: list[str]) -> list[GpuUsage]:
    """The means and the greatest memory of each GPU, of nvidia-smi's lines (index, %, MiB, W)."""
    samples: dict[int, list[tuple[float, float, float | None]]] = {}
    for line in lines:
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and fields[0].isdigit():
            utilization, memory, power = map(_number, fields[1:])
            samples.setdefault(int(fields[0]), []).append((utilization or 0.0, memory or 0.0, power))
    return [
        GpuUsage(
            index,
            sum(utilization for utilization, _, _ in rows) / len(rows),
            max(memory for _, memory, _ in rows),
            sum(watts) / len(watts) if (watts := [power for _, _, power in rows if power is not None]) else None,
        )
        for index, rows in sorted(samples.items())
    ]


def _number(text: str) -> float | None:
    """The number in `text`; None for `[N/A]`."""
    try:
        return float(text)
    except ValueError:
        return None
