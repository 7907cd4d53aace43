"""The supervisor's state in `/readyz` and `/metrics`: what is down, and every restart with its cause."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from moulin.launch.liveness import CAUSES
from moulin.launch.supervision import read_supervision


class Supervision(Collector):
    """Reads the state anew for every request; without a supervisor there is none."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def processes(self) -> dict[str, dict[str, object]]:
        """For each process its state, the number of its restarts, and the cause of the last."""
        if self._fd is None:
            return {}
        return {
            name: {
                "state": record.state,
                "restarts": sum(record.restarts.values()),
                "last_cause": record.last_cause,
            }
            for name, record in read_supervision(self._fd).items()
        }

    def summary(self) -> str:
        """What is not running, in words; empty if all is, or nothing is known."""
        down = [
            f"{name} is {row['state']}" + (f" ({row['last_cause']})" if row["last_cause"] else "")
            for name, row in self.processes().items()
            if row["state"] != "running"
        ]
        return "; ".join(down)

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return bytes(generate_latest(self._registry)) if self._fd is not None else b""

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("moulin_process_up", "Whether a supervised process runs.", labels=("process",))
        restarts = CounterMetricFamily(
            "moulin_restarts", "Restarts of supervised processes.", labels=("process", "cause")
        )
        for name, record in (read_supervision(self._fd) if self._fd is not None else {}).items():
            up.add_metric((name,), float(record.state == "running"))
            for cause in CAUSES:
                restarts.add_metric((name, cause), record.restarts.get(cause, 0))
        yield up
        yield restarts
