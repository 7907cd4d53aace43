"""The operator's options of the streaming service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moulin.decoding.options import DecodingOptions
from moulin.engine.limits import MAX_STREAMS
from moulin.options import Bounds, held, option, setting
from moulin.streaming.options import StreamOptions
from moulin.triton_repo.service_options import ServiceOptions

IDLE_TIMEOUT_SEC = 15.0
TAKEOVER_SEC = 3.0
LANE_TIMEOUT_SEC = 3.0

_WAIT = Bounds(at_least=0, below=1e6)
_TIME = Bounds(above=0, below=1e6)


@dataclass(frozen=True)
class StreamingOptions(ServiceOptions):
    """Options of the streaming service. Its instances share `max_streams` and the device's threads."""

    help_section: ClassVar[str] = "Live streams"

    max_batch: int | None = option(None, "most streams in a step.", usual="16", bounds=Bounds(1, at_most=1e6))
    """None takes a number that suits the device."""
    max_streams: int = option(MAX_STREAMS, "Streams that may be open at once.", bounds=Bounds(1, at_most=1e6))
    """Further streams are refused with UNAVAILABLE."""
    idle_timeout_sec: float = option(IDLE_TIMEOUT_SEC, "Close a stream after so long without a request.", bounds=_TIME)
    takeover_sec: float = option(
        TAKEOVER_SEC,
        "Let an open stream's id start again after so long without a request, or three chunks.",
        bounds=_TIME,
    )
    """Clients with fixed ids that were killed can so be run again. The first stream ends as a vanished client's."""
    lane_timeout_sec: float = option(
        LANE_TIMEOUT_SEC, "Close a lane of many streams after so long without a bundle.", bounds=_TIME
    )
    """Its streams end as a vanished client's."""
    max_step_ms: float | None = option(
        None,
        "Refuse new streams while a chunk takes longer than so many milliseconds.",
        usual="never",
        bounds=_TIME,
    )
    """The time counts from the chunk's arrival at the scheduler."""
    linger_ms: float = option(
        0.0,
        "Let a call of Triton's wait so many milliseconds for its replies, to give them back together (streams on a "
        "GPU).",
        bounds=_WAIT,
    )
    """Triton brings no other chunks to the instance meanwhile. Worth it where a step takes all streams that wait."""
    queue_delay_ms: float = setting(5.0, bounds=_WAIT)
    """The time for which the next chunks gather in Triton after a call, to be handed over together; where a lane is
    open, none."""
    stream: StreamOptions = held(StreamOptions)

    @property
    def decoding(self) -> DecodingOptions:
        """Those of `stream`."""
        return self.stream.decoding
