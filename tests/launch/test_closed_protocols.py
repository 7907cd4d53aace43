"""The real tritonserver: what of it a client cannot use."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.utils.shared_memory as shared_memory
from tritonclient.utils import InferenceServerException

from moulin.launch.closed_protocols import closed_protocols
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from tests.conftest import Recording

from .repository import write_model

pytestmark = pytest.mark.triton

Ask = Callable[[tritonclient.grpc.InferenceServerClient], Any]
OPERATORS: dict[str, Ask] = {
    "log settings": lambda client: client.update_log_settings({"log_verbose_level": 9}),
    "reading log settings": lambda client: client.get_log_settings(),
    "trace settings": lambda client: client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}),
}
SHARED: dict[str, Ask] = {
    "system shared memory": lambda client: client.register_system_shared_memory("mine", "/anything", 16),
    "CUDA shared memory": lambda client: client.register_cuda_shared_memory("mine", b"0" * 64, 0, 16),
    "status": lambda client: client.get_system_shared_memory_status(),
    "ending others'": lambda client: client.unregister_system_shared_memory(),
}
RESTRICTED = "This protocol is restricted"


def _refusal(url: str, ask: Ask) -> str:
    with tritonclient.grpc.InferenceServerClient(url) as client:
        try:
            ask(client)
        except InferenceServerException as error:
            return str(error.message())
    return ""


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operators_protocols_are_closed(server: TritonServer, name: str) -> None:
    assert RESTRICTED in _refusal(server.grpc_url, OPERATORS[name])


@pytest.mark.parametrize("path", ["v2/logging", "v2/trace/setting", "v2/models/transducer/trace/setting"])
def test_over_http_too(server: TritonServer, path: str) -> None:
    request = urllib.request.Request(f"http://{server.http_url}/{path}", json.dumps({"log_verbose_level": 9}).encode())
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    assert caught.value.code == 403
    assert "restricted" in caught.value.read().decode()


def test_a_client_of_this_machine_may_share_its_memory(server: TritonServer, recordings: list[Recording]) -> None:
    recording = recordings[0]
    samples = recording.waveform[np.newaxis].astype(np.float32)
    region = shared_memory.create_shared_memory_region("audio", "/moulin-test-audio", samples.nbytes)
    try:
        shared_memory.set_shared_memory_region(region, [samples])
        with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
            client.register_system_shared_memory("audio", "/moulin-test-audio", samples.nbytes)
            inputs = [
                tritonclient.grpc.InferInput("WAV", list(samples.shape), "FP32"),
                tritonclient.grpc.InferInput("WAV_LENS", [1, 1], "INT32"),
            ]
            inputs[0].set_shared_memory("audio", samples.nbytes)
            inputs[1].set_data_from_numpy(np.array([[samples.shape[1]]], dtype=np.int32))
            try:
                found = client.infer("transducer", inputs)
            finally:
                client.unregister_system_shared_memory("audio")
    finally:
        shared_memory.destroy_shared_memory_region(region)
    text = found.as_numpy("TRANSCRIPTS")
    assert text is not None
    assert text.flatten()[0].decode() == recording.text


def test_other_machines_may_not(tmp_path: Path) -> None:
    options = ServerOptions(host="0.0.0.0", http_port=0, grpc_port=0, metrics_port=0)
    with TritonServer(write_model(tmp_path / "models", "echo"), options) as server:
        server.wait_ready(60)
        for name, ask in (OPERATORS | SHARED).items():
            assert RESTRICTED in _refusal(server.grpc_url, ask), name
        with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
            assert client.is_model_ready("echo")


def test_the_key_is_another_each_time() -> None:
    first, second = (closed_protocols("127.0.0.1")[0] for _ in range(2))
    assert first != second
    assert "shared-memory" not in first
    assert "shared-memory" in closed_protocols("10.1.2.3")[0]
