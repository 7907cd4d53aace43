from __future__ import annotations

import os

from moulin.launch.liveness import Cause, Failure
from moulin.launch.supervision import SupervisionBoard, read_supervision


def test_a_child_reads_what_the_supervisor_writes() -> None:
    board = SupervisionBoard()
    other = os.dup(board.fd)
    assert read_supervision(other) == {}
    board.state("tritonserver", "running")
    causes: tuple[Cause, ...] = ("hung", "stopped", "hung")
    for cause in causes:
        board.restart("tritonserver", Failure(cause, "in words"))
    board.state("gateway", "running")
    found = read_supervision(other)
    assert found["tritonserver"].state == "restarting"
    assert found["tritonserver"].restarts == {"hung": 2, "stopped": 1}
    assert found["tritonserver"].last_cause == "hung"
    assert (found["gateway"].state, found["gateway"].restarts) == ("running", {})
    board.close()
    os.close(other)


def test_a_descriptor_that_is_none() -> None:
    assert read_supervision(10_000) == {}
    read, write = os.pipe()
    assert read_supervision(write) == {}
    os.close(read)
    os.close(write)
