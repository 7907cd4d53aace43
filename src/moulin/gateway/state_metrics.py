"""Metrics that are read when they are asked for, and are the same in every worker: the build, and what is behind."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import moulin


class StateMetrics(Collector):
    """`moulin_build_info`, and whether each Triton server answers and serves a model."""

    def __init__(self, backends: Mapping[str, bool]) -> None:
        """`backends` has the state of each server by its address."""
        self._backends = backends

    def collect(self) -> Iterator[Metric]:
        build = {"version": moulin.__version__, "python": platform.python_version()}
        yield InfoMetricFamily("moulin_build", "The version that runs.", value=build)
        up = GaugeMetricFamily(
            "moulin_gateway_backend_up", "Whether a Triton server answers and serves a model.", labels=("backend",)
        )
        for address, is_up in self._backends.items():
            up.add_metric((address,), float(is_up))
        yield up

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return bytes(generate_latest(registry))
