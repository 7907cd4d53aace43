from __future__ import annotations

import signal

from moulin.launch.signal_echo import ECHO_SEC, SignalEcho


def test_sigterm_to_a_process_and_its_group_is_one() -> None:
    now = 0.0
    echo = SignalEcho(lambda: now)
    assert not echo.is_echo(signal.SIGTERM)
    now += 0.01
    assert echo.is_echo(signal.SIGTERM)
    now += ECHO_SEC
    assert not echo.is_echo(signal.SIGTERM)


def test_ctrl_c_twice_is_meant() -> None:
    echo = SignalEcho(lambda: 0.0)
    assert not echo.is_echo(signal.SIGTERM)
    assert not echo.is_echo(signal.SIGINT)
    assert not echo.is_echo(signal.SIGINT)
