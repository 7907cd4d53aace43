"""Metrics of a model on Triton's own metrics port. Imported only inside Triton's stub process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

import triton_python_backend_utils as pb_utils

logger = logging.getLogger(__name__)

INTERVAL_SEC = 1.0
"""Between two updates, each of which is a message to Triton: too expensive for every request."""


class Counters:
    """Counters that all have the same labels."""

    def __init__(self, texts: Mapping[str, str], labels: dict[str, str]) -> None:
        """`texts` are the descriptions by name."""
        counter = pb_utils.MetricFamily.COUNTER
        self._families = [  # a metric goes away with its family
            pb_utils.MetricFamily(name=name, description=text, kind=counter) for name, text in texts.items()
        ]
        self._metrics = {name: family.Metric(labels=labels) for name, family in zip(texts, self._families, strict=True)}
        self._published = dict.fromkeys(texts, 0.0)

    def publish(self, values: Mapping[str, float]) -> None:
        """Raise each counter to its value."""
        for name, value in values.items():
            if value > self._published[name]:
                self._metrics[name].increment(value - self._published[name])
                self._published[name] = value


class NowAndThen:
    """A thread that calls `publish` at once, and then every INTERVAL_SEC."""

    def __init__(self, publish: Callable[[], None]) -> None:
        self._publish = publish
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="moulin-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._publish()
            except Exception as error:  # where shared memory is full, for example; the next time may go well
                logger.warning("Metrics could not be published: %s", error)
            if self._stopping.wait(INTERVAL_SEC):
                return


def labels_of(args: Mapping[str, str]) -> dict[str, str]:
    """The labels of a model's metrics, from the `args` of the backend's `initialize`."""
    return {"model": args["model_name"], "version": args["model_version"], "instance": args["model_instance_name"]}
