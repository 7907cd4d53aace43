from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from moulin.errors import LaunchError
from moulin.launch.ports import claim_ports, port_is_free, reachable


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port(taken: int) -> None:
    assert not port_is_free("127.0.0.1", taken)
    with pytest.raises(LaunchError, match=f"Expected port {taken} on 127.0.0.1 to be free for me, got:.*--b"):
        claim_ports("127.0.0.1", {"--a": 0, "--b": taken}, owner="me")


def test_zeros_become_free_ports_of_their_own() -> None:
    claimed = claim_ports("127.0.0.1", {"--a": 0, "--b": 0, "--c": 0})
    assert list(claimed) == ["--a", "--b", "--c"]
    assert len(set(claimed.values())) == 3
    assert all(port_is_free("127.0.0.1", port) for port in claimed.values())


def test_one_port_for_two_flags() -> None:
    port = claim_ports("127.0.0.1", {"--a": 0})["--a"]
    with pytest.raises(LaunchError, match=f"a port of its own for --b, got {port} twice"):
        claim_ports("127.0.0.1", {"--a": port, "--b": port})


@pytest.mark.parametrize(
    ("host", "address"),
    [("0.0.0.0", "127.0.0.1:1"), ("::", "[::1]:1"), ("10.0.0.7", "10.0.0.7:1"), ("fe80::1", "[fe80::1]:1")],
)
def test_where_a_server_is_reached(host: str, address: str) -> None:
    assert reachable(host, 1) == address
