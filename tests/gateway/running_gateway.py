"""A gateway that listens, in a thread of the tests' own process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moulin.gateway.connections import BoundedListener
from moulin.gateway.server import DrainingServer, connections_for, server_config
from moulin.gateway.settings import gateway_settings


@contextmanager
def running_gateway(*triton: str, port: int = 0, drain_sec: float = 0.0, **settings: Any) -> Iterator[str]:
    """Its HOST:PORT; on a free port, or on that of one that has stopped. `triton` are the addresses of its servers."""
    chosen = gateway_settings(triton=triton, drain_sec=drain_sec, **settings)
    connections = connections_for(chosen)
    config = server_config(chosen, connections)
    with BoundedListener(socket.create_server(("127.0.0.1", port)), connections) as listener:
        server = DrainingServer(config, drain_sec)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the gateway died while it started"
            assert time.monotonic() < deadline, "the gateway did not start"
            time.sleep(0.02)
        yield "{}:{}".format(*listener.getsockname())
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the gateway does not stop"
