"""Triton's own statistics of its requests, to compare with the load generator's."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from moulin.errors import ServerUnavailable, first_line
from moulin.evaluate.results.loads import TritonFigures


@dataclass(frozen=True, slots=True)
class TritonStatistics:
    """Statistics since the model was loaded or, as a difference, of a run. Times are sums over requests."""

    requests: int
    """Requests that were answered without an error."""
    failures: int
    executions: int
    """Calls of the model, each with a batch of requests."""
    queue_sec: float
    compute_sec: float
    """Seconds of input, inference and output; 0 for models that reply later, which Triton does not time."""

    def __sub__(self, before: TritonStatistics) -> TritonStatistics:
        return TritonStatistics(*(getattr(self, it.name) - getattr(before, it.name) for it in fields(self)))

    def figures(self) -> TritonFigures:
        return TritonFigures(
            requests=self.requests,
            failures=self.failures,
            executions=self.executions,
            mean_batch=round(self.requests / self.executions if self.executions else 0.0, 2),
            mean_queue_ms=round(1e3 * self.queue_sec / max(1, self.requests), 2),
            mean_compute_ms=round(1e3 * self.compute_sec / max(1, self.requests), 2),
        )


ReadStatistics = Callable[[], TritonStatistics]


def read_over_http(address: str, model: str) -> TritonStatistics:
    """The statistics of the server whose HTTP endpoint is at `address` (HOST:PORT). Raises ServerUnavailable."""
    try:
        with urllib.request.urlopen(f"http://{address}/v2/models/{model}/stats", timeout=10) as reply:
            return _parsed(json.load(reply)["model_stats"][0])
    except (OSError, ValueError, LookupError) as error:
        raise ServerUnavailable(f"No statistics of {model!r} from {address}: {first_line(error)}") from error


def read_over_grpc(address: str, model: str) -> TritonStatistics:
    """The statistics of the server whose gRPC endpoint is at `address` (HOST:PORT). Raises ServerUnavailable."""
    import tritonclient.grpc as triton
    from tritonclient.utils import InferenceServerException

    try:
        with triton.InferenceServerClient(address) as client:
            return _parsed(client.get_inference_statistics(model, as_json=True)["model_stats"][0])
    except (InferenceServerException, LookupError) as error:
        raise ServerUnavailable(f"No statistics of {model!r} from {address}: {first_line(error)}") from error


def _parsed(stats: dict[str, Any]) -> TritonStatistics:
    """The statistics in `stats`; gRPC's JSON leaves zeros out and writes int64 as strings."""
    inference = stats.get("inference_stats", {})

    def count(name: str, what: str) -> int:
        return int(inference.get(name, {}).get(what, 0))

    compute = ("compute_input", "compute_infer", "compute_output")
    return TritonStatistics(
        requests=count("success", "count"),
        failures=count("fail", "count"),
        executions=int(stats.get("execution_count", 0)),
        queue_sec=count("queue", "ns") / 1e9,
        compute_sec=sum(count(name, "ns") for name in compute) / 1e9,
    )
