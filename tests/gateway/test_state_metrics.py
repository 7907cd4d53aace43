"""What `/metrics` says of the build and of the servers behind, and what it does not say."""

from __future__ import annotations

import re
from dataclasses import replace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from moulin import __version__
from moulin.client.served_model import ServedModel
from moulin.gateway.metrics import Metrics
from moulin.gateway.state_metrics import StateMetrics
from moulin.launch.server import TritonServer

from .running_gateway import running_gateway


def test_the_build_and_each_server() -> None:
    exact = ServedModel("a", streaming=False, max_utterance_sec=30.0, engine="onnxruntime", precision="int8")
    fast = replace(exact, engine="openvino", precision="bf16")
    of_an_earlier_moulin = replace(exact, engine=None, precision=None)
    metrics = StateMetrics({"a:8001": True, "b:8001": False}, [fast, exact, fast, of_an_earlier_moulin])
    text = metrics.exposition().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    (build,) = (sample for sample in samples if sample.name == "moulin_build_info")
    assert build.labels["version"] == __version__
    assert build.labels["engines"] == "onnxruntime:int8 openvino:bf16"
    assert {
        sample.labels["backend"]: sample.value for sample in samples if sample.name == "moulin_gateway_backend_up"
    } == {
        "a:8001": 1.0,
        "b:8001": 0.0,
    }


def test_no_series_of_when_a_metric_was_made() -> None:
    metrics = Metrics()
    metrics.requests.labels("/", "GET", "200").inc()
    metrics.request_seconds.labels("/").observe(0.1)
    assert "_created" not in metrics.exposition().decode()


@pytest.mark.triton
def test_a_server_that_answers_and_one_that_speaks_no_grpc(server: TritonServer) -> None:
    for triton, up in ((server.grpc_url, "1.0"), (server.http_url, "0.0")):
        with running_gateway(triton) as address:
            text = httpx.get(f"http://{address}/metrics").text
            assert re.search(rf'^moulin_gateway_backend_up{{backend="{re.escape(triton)}"}} {up}$', text, re.MULTILINE)
            state = httpx.get(f"http://{address}/readyz")
        assert (state.status_code == 200) == (up == "1.0")
        if state.status_code != 200:
            assert "gRPC port" in state.json()["error"]["message"]
