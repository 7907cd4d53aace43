"""moulin's gateway in front of its service, both started for a run, and streams over WebSockets to it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from moulin.bundle.spec import ModelSpec
from moulin.evaluate.targets.gateway_stream import stream_at
from moulin.evaluate.targets.target import RunningTarget, ServerSettings, needed
from moulin.evaluate.targets.triton import served
from moulin.launch.gateway import GatewayProcess
from moulin.launch.ports import claim_ports

WORKERS = (1, 2, 4, 8)
_SPARE_FILES = 2_000
"""Open files that the gateway wants beside those of its streams."""


@contextmanager
def started(
    workers: int, spec: ModelSpec | None, settings: ServerSettings, *, idle: bool = False, lanes: bool = True
) -> Iterator[RunningTarget]:
    """`WS /v1/stream` of a gateway with `workers`; `idle` and `lanes` as for `served`."""
    with served(needed(spec), settings, idle=idle, lanes=lanes) as server:
        (port,) = claim_ports("127.0.0.1", {"gateway": 0}).values()
        address = f"127.0.0.1:{port}"
        arguments = ["--triton", server.grpc_url, "--port", str(port), "--quiet", "--workers", str(workers)]
        open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        arguments += ["--max-streams", str(max(256, open_files - _SPARE_FILES))]
        with GatewayProcess(arguments, address=address) as gateway:
            yield replace(stream_at(address, settings), pid=server.pid, gateway_pid=gateway.pid)
            server.stop()
