"""The streaming model's metrics on Triton's own metrics port.

Triton cannot measure the work on a chunk, because replies come after `execute` has returned. Imported only inside
Triton's stub process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import triton_python_backend_utils as pb_utils

from moulin.engine.step_scheduler import LATENCIES_SEC
from moulin.triton_repo.lane_service import LaneService
from moulin.triton_repo.published import Counters, NowAndThen, labels_of
from moulin.triton_repo.streaming_service import StreamingService

_GAUGES = {
    "moulin_streams": "Streams that are open",
    "moulin_streams_limit": "Streams that may be open",
    "moulin_lanes": "Lanes of many streams that are open",
}
_COUNTERS = {
    "moulin_streams_opened_total": "Streams that were started",
    "moulin_streams_refused_total": "Streams that were refused because all were in use",
    "moulin_streams_refused_for_load_total": "Streams that were refused because chunks took too long",
    "moulin_streams_taken_over_total": "Streams whose id was started again after they had been quiet",
    "moulin_streams_timed_out_total": "Streams that were closed because no request came for too long",
    "moulin_chunks_total": "Requests that were answered",
    "moulin_chunk_seconds_total": "Seconds between the arrivals and the answers of those requests",
    "moulin_audio_seconds_total": "Seconds of audio in those requests and in bundles",
    "moulin_bundles_total": "Requests of lanes that were answered",
    "moulin_bundle_chunks_total": "Chunks in those requests",
    "moulin_lanes_timed_out_total": "Lanes that were closed because no bundle came for too long",
    "moulin_steps_total": "Encoder calls",
    "moulin_step_streams_total": "Streams in those calls",
    "moulin_step_seconds_total": "Seconds in those calls, and in the search after them",
    "moulin_step_wait_seconds_total": "Seconds that those streams waited for their call to begin",
}

_LATENCY = "moulin_step_latency_seconds"
_LATENCY_TEXT = "From when a stream's audio for a step was there to the end of the step"


class StreamingMetrics:
    """Publishes a service's counters now and then."""

    def __init__(self, service: StreamingService, lanes: LaneService, args: Mapping[str, str]) -> None:
        """`args` are those of the backend's `initialize`."""
        self._service, self._lanes = service, lanes
        labels = labels_of(args)
        self._families: list[Any] = []  # a metric goes away with its family
        self._gauges = {
            name: self._family(name, text, pb_utils.MetricFamily.GAUGE).Metric(labels=labels)
            for name, text in _GAUGES.items()
        }
        self._counters = Counters(_COUNTERS, labels)
        self._latency = _Latency(self._family, labels)
        self._thread = NowAndThen(self._publish)

    def close(self) -> None:
        self._thread.close()

    def _family(self, name: str, description: str, kind: Any) -> Any:
        family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
        self._families.append(family)
        return family

    def _publish(self) -> None:
        service, counters, lanes = self._service, self._service.counters(), self._lanes.counters
        self._gauges["moulin_streams"].set(service.num_open)
        self._gauges["moulin_streams_limit"].set(service.capacity)
        self._gauges["moulin_lanes"].set(self._lanes.num_lanes)
        now: dict[str, float] = {
            "moulin_streams_opened_total": counters.opened + lanes.opened,
            "moulin_streams_refused_total": counters.refused + lanes.refused,
            "moulin_streams_refused_for_load_total": counters.refused_for_load + lanes.refused_for_load,
            "moulin_streams_taken_over_total": counters.taken_over,
            "moulin_streams_timed_out_total": counters.timed_out + lanes.streams_timed_out,
            "moulin_chunks_total": counters.replies,
            "moulin_chunk_seconds_total": counters.waited_sec,
            "moulin_audio_seconds_total": counters.audio_sec + lanes.audio_sec,
            "moulin_bundles_total": lanes.bundles,
            "moulin_bundle_chunks_total": lanes.chunks,
            "moulin_lanes_timed_out_total": lanes.timed_out,
            "moulin_steps_total": counters.steps,
            "moulin_step_streams_total": counters.step_streams,
            "moulin_step_seconds_total": counters.step_sec,
            "moulin_step_wait_seconds_total": counters.step_wait_sec,
        }
        self._counters.publish(now)
        self._latency.publish(counters.step_latencies, counters.step_stream_sec)


class _Latency:
    """A histogram, as Prometheus has them: counters with an upper bound `le` each. Triton's own kind takes each value
    in a message."""

    def __init__(self, family: Callable[[str, str, Any], Any], labels: dict[str, str]) -> None:
        counter = pb_utils.MetricFamily.COUNTER
        buckets = family(f"{_LATENCY}_bucket", _LATENCY_TEXT, counter)
        bounds = [*map(str, LATENCIES_SEC), "+Inf"]
        self._buckets = [buckets.Metric(labels={**labels, "le": bound}) for bound in bounds]
        self._sum = family(f"{_LATENCY}_sum", _LATENCY_TEXT, counter).Metric(labels=labels)
        self._count = family(f"{_LATENCY}_count", _LATENCY_TEXT, counter).Metric(labels=labels)
        self._published = [0.0] * (len(bounds) + 2)

    def publish(self, latencies: Sequence[int], seconds: float) -> None:
        """`latencies` as of `StepScheduler.latencies`, and the sum of all in seconds."""
        up_to = list(accumulate(latencies))
        values = [*up_to, seconds, up_to[-1]]
        for index, metric in enumerate((*self._buckets, self._sum, self._count)):
            if values[index] > self._published[index]:
                metric.increment(values[index] - self._published[index])
                self._published[index] = values[index]
