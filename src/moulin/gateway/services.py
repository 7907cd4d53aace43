"""The objects shared by all handlers."""

from __future__ import annotations

from dataclasses import dataclass

from moulin.gateway.ignored_fields import IgnoredFields
from moulin.gateway.limits import Limits
from moulin.gateway.metrics import Metrics
from moulin.gateway.model_catalog import ModelCatalog
from moulin.gateway.recordings import Recordings
from moulin.gateway.recordings_by_stream import RecordingsByStream
from moulin.gateway.settings import GatewaySettings
from moulin.gateway.tracing import Tracing, open_tracing
from moulin.gateway.triton_servers import TritonServers
from moulin.isolated_decoding.messages import DecodingLimits


@dataclass(frozen=True, slots=True)
class Services:
    """Created once by `create_app`; handlers close over it."""

    settings: GatewaySettings
    triton: TritonServers
    catalog: ModelCatalog
    limits: Limits
    ignored: IgnoredFields
    metrics: Metrics
    recordings: Recordings
    recordings_by_stream: RecordingsByStream
    tracing: Tracing

    @classmethod
    def of(cls, settings: GatewaySettings) -> Services:
        triton = TritonServers(settings.triton, timeout_sec=settings.triton_timeout_sec)
        metrics = Metrics(settings.shared_folder)
        tracing = open_tracing(settings.otlp_endpoint)
        recordings = Recordings(triton, metrics, tracing, DecodingLimits(cpu_sec=settings.max_decode_sec))
        by_stream, limits = RecordingsByStream(triton, metrics), Limits(settings)
        catalog, ignored = ModelCatalog(triton, settings), IgnoredFields(strict=settings.strict_fields)
        return cls(settings, triton, catalog, limits, ignored, metrics, recordings, by_stream, tracing)
