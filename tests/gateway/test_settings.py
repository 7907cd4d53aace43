"""Settings of the gateway, and errors for invalid ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from moulin.errors import OptionsError
from moulin.gateway.settings import GatewaySettings, gateway_settings
from moulin.launch.ports import is_loopback


def test_the_defaults_serve_this_machine_alone() -> None:
    settings = gateway_settings()
    assert (settings.host, settings.port, settings.triton) == ("127.0.0.1", 9000, ("localhost:8001",))
    assert settings.allow_origins == ()
    assert not settings.tls


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.7", False),
        ("asr.example.org", False),
        ("", False),
    ],
)
def test_other_machines_need_a_key_or_permission(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
    if loopback:
        gateway_settings(host=host)
    else:
        with pytest.raises(OptionsError, match="Expected API keys") as caught:
            gateway_settings(host=host)
        assert "--allow-anonymous" in str(caught.value.hint)
    assert gateway_settings(host=host, api_keys=["k"]).api_keys == ("k",)
    assert gateway_settings(host=host, allow_anonymous=True).host == host


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prot": 1}, "Gateway setting prot: Extra inputs are not permitted"),
        ({"triton": ("dns:asr",)}, r"Expected servers by their name as dns:NAME:PORT, got 'dns:asr'"),
        ({"triton": ("dns:asr:99999",)}, "Expected servers by their name as dns:NAME:PORT"),
        ({"move_buffer_bytes": -1}, "Gateway setting move_buffer_bytes"),
        ({"port": "x"}, "Gateway setting port: .* got 'x'"),
        ({"max_requests": 0}, "Gateway setting max_requests: .* got 0"),
        ({"max_audio_sec": float("nan")}, "Gateway setting max_audio_sec"),
        ({"triton": []}, "Expected the address of at least one Triton server"),
        ({"tls_certificate": "/x"}, "Expected a TLS certificate and its key, got one of the two"),
        ({"tls_certificate": "/x", "tls_key": "/x"}, "Expected a PEM file at /x, got no such file"),
        ({"api_keys": ["a b c"]}, "API keys of printable ASCII without spaces"),
        ({"api_keys": ["a", "/ b"]}, "names of API keys of up to 64 letters.* in entry 2"),
        ({"api_keys": ["ключ"]}, "API keys of printable ASCII without spaces"),
        ({"api_keys": [""]}, "API keys of printable ASCII without spaces"),
    ],
)
def test_what_does_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message) as caught:
        gateway_settings(**fields)
    assert "ключ" not in str(caught.value)  # a message never shows a key


def test_nothing_changes_them(tmp_path: Path) -> None:
    (tmp_path / "pem").write_text("")
    settings = gateway_settings(tls_certificate=tmp_path / "pem", tls_key=tmp_path / "pem")
    assert settings.tls
    with pytest.raises(ValidationError):
        settings.port = 1
    assert isinstance(settings, GatewaySettings)


def test_api_keys_that_look_like_short_lived_ones() -> None:
    with pytest.raises(OptionsError, match="than short-lived ones"):
        gateway_settings(api_keys=("ek_mine",))
