"""Traces as an OTLP collector gets them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from moulin.launch.server import TritonServer
from tests.conftest import Recording

from .running_gateway import running_gateway

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Keeps the spans that are posted to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Span] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/traces"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert isinstance(self.server, Collector)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.triton
def test_a_request_and_its_pieces_continue_the_callers_trace(
    collector: Collector, server: TritonServer, recordings: list[Recording]
) -> None:
    with running_gateway(server.grpc_url, otlp_endpoint=collector.endpoint) as address:
        answer = httpx.post(
            f"http://{address}/v1/audio/transcriptions",
            files={"file": recordings[0].file.read_bytes()},
            data={"model": "whisper-1"},
            headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "order-66"},
            timeout=60,
        )
        assert answer.status_code == 200
    # Stopping has sent what there was.
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"POST /v1/audio/transcriptions", "triton infer"}
    request, piece = spans["POST /v1/audio/transcriptions"], spans["triton infer"]
    assert request.trace_id.hex() == piece.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT
    assert piece.parent_span_id == request.span_id
    attributes = {pair.key: pair.value for pair in request.attributes}
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["moulin.request_id"].string_value == "order-66"
    end_sec = {pair.key: pair.value for pair in piece.attributes}["moulin.end_sec"].double_value
    assert end_sec == pytest.approx(len(recordings[0].waveform) / 16000)
