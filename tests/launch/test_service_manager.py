"""What systemd is told, on a socket of the kind that it listens on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from moulin.launch.service_manager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A socket, and its address as NOTIFY_SOCKET has it."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@{tmp_path}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as heard:
        heard.bind(address.replace("@", "\0", 1))
        heard.setblocking(False)
        yield address, heard


def test_messages_as_sd_notify_defines_them(listening: tuple[str, socket.socket]) -> None:
    address, heard = listening
    manager = ServiceManager(address, is_watching=True)
    manager.status("Loading a")
    manager.ready("Serving a as transducer\n  on cpu")
    manager.alive()
    manager.stopping("Stopping")
    assert [heard.recv(1000) for _ in range(4)] == [
        b"STATUS=Loading a",
        b"READY=1\nSTATUS=Serving a as transducer on cpu",
        b"WATCHDOG=1",
        b"STOPPING=1\nSTATUS=Stopping",
    ]


def test_no_sign_of_life_for_a_manager_that_does_not_wait_for_one(listening: tuple[str, socket.socket]) -> None:
    address, heard = listening
    ServiceManager(address).alive()
    with pytest.raises(BlockingIOError):
        heard.recv(1000)


def test_a_name_of_a_model_is_no_message(listening: tuple[str, socket.socket]) -> None:
    """What a folder is called cannot say READY."""
    address, heard = listening
    ServiceManager(address).status("Loading a\nREADY=1 \udcff" + "long" * 1000)
    message = heard.recv(5000)
    assert message.startswith(b"STATUS=Loading a READY=1 ?long")
    assert len(message) < 2100


@pytest.mark.parametrize("address", [None, "", "/nowhere/notify", "@nobody listens", "relative", "/" + "long" * 100])
def test_nobody_there_is_no_error(address: str | None) -> None:
    ServiceManager(address).ready("Serving")
