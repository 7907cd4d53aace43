"""CPU time and memory of a target while it is measured."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from moulin.evaluate.gpu_usage import GpuUsage, GpuWatch
from moulin.evaluate.process_usage import cpu_sec_by_process, machine_cpu_sec, memory_bytes

_INTERVAL_SEC = 1.0


@dataclass(frozen=True, slots=True)
class TargetUsage:
    """Usage within the measured window; that of a server elsewhere is unknown (`server_cpu_sec` None)."""

    server_cpu_sec: float | None
    machine_cpu_sec: float
    peak_memory_bytes: int
    gpus: tuple[GpuUsage, ...] = ()
    processes_cpu_sec: tuple[float, ...] = ()
    """CPU seconds of the server's first process and of each that it started, the busiest first."""


async def watch(pid: int | None, first_sec: float, end_sec: float) -> TargetUsage:
    """The usage of the process `pid` and its descendants, between two times of the event loop's clock."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(first_sec - loop.time())
    before, machine, peak = cpu_sec_by_process(pid) if pid else {}, machine_cpu_sec(), 0
    gpus = GpuWatch()
    gpus.start()
    try:
        while (left := end_sec - loop.time()) > 0:
            peak = max(peak, memory_bytes(pid) if pid else 0)
            await asyncio.sleep(min(left, _INTERVAL_SEC))
        machine = machine_cpu_sec() - machine
        after = cpu_sec_by_process(pid) if pid else {}
        used = {process: sec - before.get(process, 0.0) for process, sec in after.items()}
        others = sorted((sec for process, sec in used.items() if process != pid), reverse=True)
        server = sum(after.values()) - sum(before.values()) if pid else None
        return TargetUsage(server, machine, peak, tuple(gpus.stop()), (used.get(pid, 0.0), *others) if pid else ())
    finally:
        gpus.stop()
