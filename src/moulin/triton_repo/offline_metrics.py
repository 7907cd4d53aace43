"""The metrics of a model of whole recordings on Triton's own metrics port.

Triton cannot measure the work on a request, because replies come after `execute` has returned. Imported only inside
Triton's stub process.
"""

from __future__ import annotations

from collections.abc import Mapping

from moulin.triton_repo.offline_workers import OfflineWorkers
from moulin.triton_repo.published import Counters, NowAndThen, labels_of

COUNTERS = {
    "moulin_recordings_total": "Requests for whole recordings that were recognised or failed",
    "moulin_recording_seconds_total": "Seconds of work on those requests, without their wait in Triton's queue",
    "moulin_recording_audio_seconds_total": "Seconds of audio in those requests",
}


class OfflineMetrics:
    """Publishes the workers' counters now and then."""

    def __init__(self, workers: OfflineWorkers, args: Mapping[str, str]) -> None:
        """`args` are those of the backend's `initialize`."""
        self._workers = workers
        self._counters = Counters(COUNTERS, labels_of(args))
        self._thread = NowAndThen(self._publish)

    def close(self) -> None:
        self._thread.close()

    def _publish(self) -> None:
        now = self._workers.counters
        self._counters.publish(dict(zip(COUNTERS, (now.requests, now.seconds, now.audio_sec), strict=True)))
