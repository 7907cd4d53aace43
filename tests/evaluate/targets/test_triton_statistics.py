"""Triton's statistics in both of the forms in which they come."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from moulin.errors import ServerUnavailable
from moulin.evaluate.targets.triton_statistics import TritonStatistics, _parsed, read_over_grpc, read_over_http
from moulin.launch.server import TritonServer


def test_numbers_may_be_strings_and_zeros_left_out() -> None:
    stats = {
        "execution_count": "5",
        "inference_stats": {
            "success": {"count": "20", "ns": "1"},
            "queue": {"count": "20", "ns": "2000000000"},
            "compute_infer": {"count": "20", "ns": "4000000000"},
        },
    }
    found = _parsed(stats)
    assert found == TritonStatistics(20, 0, 5, 2.0, 4.0)
    assert asdict(found.figures()) == {
        "requests": 20,
        "failures": 0,
        "executions": 5,
        "mean_batch": 4.0,
        "mean_queue_ms": 100.0,
        "mean_compute_ms": 200.0,
    }


def test_a_difference_is_what_happened_between() -> None:
    assert TritonStatistics(9, 2, 4, 3.0, 2.0) - TritonStatistics(4, 1, 3, 1.0, 0.5) == TritonStatistics(
        5, 1, 1, 2.0, 1.5
    )


def test_nobody_there() -> None:
    for read in (read_over_http, read_over_grpc):
        with pytest.raises(ServerUnavailable, match=r"No statistics of 'transducer' from 127\.0\.0\.1:1"):
            read("127.0.0.1:1", "transducer")


@pytest.mark.triton
def test_both_ways_say_the_same_of_a_real_server(server: TritonServer) -> None:
    assert read_over_http(server.http_url, "transducer") == read_over_grpc(server.grpc_url, "transducer")
    with pytest.raises(ServerUnavailable, match="No statistics of 'nobody'"):
        read_over_http(server.http_url, "nobody")
