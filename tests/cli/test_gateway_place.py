"""Where the gateway of `moulin serve` listens, by flags and by the gateway's own settings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from moulin.cli.gateway_access import GatewayAccess
from moulin.cli.gateway_place import GatewayOptions, GatewayPlace
from moulin.errors import OptionsError

TLS = Path(__file__).parents[1] / "data" / "tls"

Settings = Callable[[str], Path]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    def write(gateway: str) -> Path:
        file = tmp_path / "moulin.toml"
        file.write_text(f"[gateway]\n{gateway}\n")
        return file

    return write


def place(options: GatewayOptions, config: Path | None = None) -> GatewayPlace:
    """Beside a Triton for this machine alone."""
    found = options.place("127.0.0.1", quiet=False, log_format="text", config=config)
    assert found is not None
    return found


def test_it_listens_where_triton_does() -> None:
    assert place(GatewayOptions(port=0)).host == "127.0.0.1"


def test_it_alone_is_open_to_other_machines() -> None:
    with pytest.raises(OptionsError, match=r"Expected API keys for a gateway that listens on 0\.0\.0\.0"):
        place(GatewayOptions(port=0, host="0.0.0.0"))
    found = place(GatewayOptions(port=0, host="0.0.0.0", access=GatewayAccess(allow_anonymous=True)))
    assert found.host == "0.0.0.0"


def test_its_own_settings_hold_beside_triton(settings: Settings, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("app secret\n")
    lines = [f'api-keys = "{keys}"', f'tls-certificate = "{TLS / "certificate.pem"}"', f'tls-key = "{TLS / "key.pem"}"']
    found = place(GatewayOptions(), settings("\n".join(['host = "0.0.0.0"', "port = 0", *lines])))
    assert (found.host, found.access.api_keys, found.tls) == ("0.0.0.0", keys, True)
    assert found.port not in (0, 9000)
    assert found.url == f"https://127.0.0.1:{found.port}"


def test_flags_win(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    file = settings('host = "0.0.0.0"\nport = 1\nallow-anonymous = true')
    assert place(GatewayOptions(port=0), file).host == "0.0.0.0"
    assert place(GatewayOptions(port=0, host="127.0.0.1"), file).host == "127.0.0.1"
    monkeypatch.setenv("MOULIN_GATEWAY_HOST", "127.0.0.2")
    assert place(GatewayOptions(port=0), file).host == "127.0.0.2"


def test_a_port_that_is_none(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionsError, match="Expected port of 0 to 65535 among the gateway's settings, got 'many'"):
        place(GatewayOptions(), settings('port = "many"'))
    monkeypatch.setenv("MOULIN_GATEWAY_PORT", "tcp://10.0.0.1:9000")  # Kubernetes', for a service of this name
    assert place(GatewayOptions(), settings("port = 0")).port
