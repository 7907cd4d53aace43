"""Metrics that are read when they are asked for, and are the same in every worker: the build, and what is behind."""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

import moulin
from moulin.client.served_model import ServedModel


class StateMetrics(Collector):
    """`moulin_build_info`, and whether each Triton server answers and serves a model."""

    def __init__(self, backends: Mapping[str, bool], models: Collection[ServedModel] = ()) -> None:
        """`backends` has the state of each server by its address; `models` are those that the servers have."""
        self._backends, self._models = backends, models

    def collect(self) -> Iterator[Metric]:
        # Two gateways say the same where their servers run the models on the same engines.
        engines = {f"{model.engine}:{model.precision}" for model in self._models if model.engine}
        build = {
            "version": moulin.__version__,
            "python": platform.python_version(),
            "engines": " ".join(sorted(engines)),
        }
        yield InfoMetricFamily("moulin_build", "The version, and what the models behind it run on.", value=build)
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
