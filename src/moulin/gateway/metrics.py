"""The metrics at /metrics, for Prometheus."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from moulin.gateway.api_keys import KEY_NAME

_LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Metrics of one gateway process, in its own registry, or of all its workers together."""

    def __init__(self, shared_folder: Path | None = None) -> None:
        """`shared_folder` is that of PROMETHEUS_MULTIPROC_DIR, which prometheus_client itself reads."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._shared_folder = shared_folder
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "moulin_gateway_requests", "Requests answered.", ("route", "method", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "moulin_gateway_request_seconds",
            "From a request's first byte to its answer's last.",
            ("route",),
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self.uploads = _gauge("moulin_gateway_uploads", "Recordings that are being received.", registry)
        self.queued = _gauge(
            "moulin_gateway_queued", "Recordings that have been received and wait for their turn.", registry
        )
        self.transcribing = _gauge("moulin_gateway_transcribing", "Recordings that are being transcribed.", registry)
        self.audio_seconds = Counter("moulin_gateway_audio_seconds", "Audio transcribed.", ("kind",), registry=registry)
        """`kind` is `recording` or `stream`."""
        self.key_requests = Counter(
            "moulin_gateway_key_requests",
            "Requests answered, by the name of their API key.",
            ("key",),
            registry=registry,
        )
        self.key_audio_seconds = Counter(
            "moulin_gateway_key_audio_seconds",
            "Audio transcribed, by the name of the API key.",
            ("key", "kind"),
            registry=registry,
        )
        self.rtfx = Histogram(
            "moulin_gateway_rtfx",
            "Seconds of audio transcribed in a second, of a whole recording.",
            buckets=(0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=registry,
        )
        self.active_streams = _gauge("moulin_gateway_active_streams", "Live streams with audio.", registry)
        self.first_partial_seconds = Histogram(
            "moulin_gateway_first_partial_seconds",
            "From the first audio with speech of a live stream to its first text.",
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )
        self.final_seconds = Histogram(
            "moulin_gateway_final_seconds",
            "From the end of a live stream's audio to its final text.",
            buckets=_LATENCY_BUCKETS,
            registry=registry,
        )

        self.moved_streams = Counter(
            "moulin_gateway_moved_streams",
            "Live streams that went on with another lane than theirs.",
            registry=registry,
        )
        self.move_seconds = Histogram(
            "moulin_gateway_move_seconds",
            "From the loss of a live stream's server to another that took it.",
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0),
            registry=registry,
        )
        self.lost_streams = Counter(
            "moulin_gateway_lost_streams",
            "Live streams that ended with their server: not_kept, too much of them was not final; not_taken, no other "
            "server took them in time.",
            ("reason",),
            registry=registry,
        )
        self.streams_elsewhere = Counter(
            "moulin_gateway_streams_elsewhere",
            "Live streams that began on another server than the one that was asked first.",
            registry=registry,
        )
        self.move_buffer_bytes = _gauge(
            "moulin_gateway_move_buffer_bytes", "Audio that is kept in case that streams have to move.", registry
        )
        self.unmovable_streams = _gauge(
            "moulin_gateway_unmovable_streams",
            "Live streams that could not move now: too much of them is not final.",
            registry,
        )
        self.servers = Gauge(
            "moulin_gateway_servers",
            "Triton servers: listed, and departed ones with streams or requests still.",
            ("state",),
            multiprocess_mode="livemax",
            registry=registry,
        )
        self.resolutions = Counter(
            "moulin_gateway_resolutions",
            "Look-ups of servers' names in DNS: answered, empty, failed.",
            ("outcome",),
            registry=registry,
        )

    def count_audio(self, kind: str, seconds: float) -> None:
        """Count audio transcribed for the current request: of a `recording` or a `stream`."""
        self.audio_seconds.labels(kind).inc(seconds)
        if key := KEY_NAME.get():
            self.key_audio_seconds.labels(key, kind).inc(seconds)

    def exposition(self) -> bytes:
        """The metrics in Prometheus' text format."""
        if self._shared_folder is None:
            return bytes(generate_latest(self.registry))
        everybodys = CollectorRegistry()
        MultiProcessCollector(everybodys, str(self._shared_folder))  # type: ignore[no-untyped-call]
        return bytes(generate_latest(everybodys))


def _gauge(name: str, help: str, registry: CollectorRegistry) -> Gauge:
    """A gauge that is summed over the running workers."""
    return Gauge(name, help, multiprocess_mode="livesum", registry=registry)
