"""The operator's options of the offline service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moulin.decoding.options import DecodingOptions
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.options import Bounds, held, option, setting
from moulin.triton_repo.service_options import ServiceOptions


@dataclass(frozen=True)
class OfflineOptions(ServiceOptions):
    """Options of the offline service; `engine.threads` are those of all instances together."""

    help_section: ClassVar[str] = "Whole utterances"

    max_batch: int = option(64, "Most utterances in a batch, and in a request", bounds=Bounds(1, at_most=1e6))
    max_audio_sec: float = option(MAX_AUDIO_SEC, "Refuse longer utterances (offline).", bounds=Bounds(above=0))
    max_queue: int = setting(2048, bounds=Bounds(at_least=1))
    """Requests that may wait. Further ones are refused with UNAVAILABLE at once rather than after a timeout."""
    queue_delay_ms: float = setting(0.0, bounds=Bounds(at_least=0))
    """The wait of a batch's first request for others. Under load batches form without any wait."""
    decoding: DecodingOptions = held(DecodingOptions)
