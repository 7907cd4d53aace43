"""The log of TensorRT."""

from __future__ import annotations

import logging

import pytest

from moulin.tensorrt_engine.library_log import listening, logger_of
from tests.tensorrt_stand_in import BaseLogger, StandIn

LEVELS = BaseLogger.Severity


def test_each_listener_has_the_errors_of_its_time(caplog: pytest.LogCaptureFixture) -> None:
    module = StandIn()
    logger = logger_of(module)
    assert logger_of(module) is logger
    with listening(module) as outer:
        logger.log(LEVELS.WARNING, "nothing bad")
        assert outer.reason == "it gives no reason"
        with listening(module) as inner:
            logger.log(LEVELS.ERROR, "first\nsecond")
        logger.log(LEVELS.INTERNAL_ERROR, "third")
        assert (outer.reason, inner.reason) == ("first", "first")
    assert not caplog.records
    with caplog.at_level(logging.ERROR):
        logger.log(LEVELS.WARNING, "nothing bad")
        logger.log(LEVELS.ERROR, "nobody listens")
    assert [record.getMessage() for record in caplog.records] == ["nobody listens"]
