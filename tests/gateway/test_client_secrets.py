"""Secrets without a gateway: another worker, another time, another key."""

from __future__ import annotations

import random
from typing import Any

import pytest

from moulin.gateway.api_error import ApiError
from moulin.gateway.client_secrets import ClientSecret, ClientSecrets

SESSION: dict[str, Any] = {"type": "transcription", "audio": {"input": {"transcription": {"prompt": "é, b"}}}}


def test_every_worker_with_the_keys_opens_what_another_made() -> None:
    made = ClientSecrets(("one", "two"), lambda: 1000.5)
    value, expires_at = made.make(1, SESSION, older=False, valid_sec=600)
    assert expires_at == 1600
    assert value.startswith("ek_")
    assert value.isascii()
    assert not set(value) & set(" ,;\"'")
    for keys in (("one", "two"), ("two",), ("x", "y", "two")):
        opened = ClientSecrets(keys, lambda: 1599.9).open(value)
        assert opened == ClientSecret(keys.index("two"), SESSION, False)
    assert made.make(1, SESSION, older=False, valid_sec=600)[0] != value


def test_they_expire_and_end_with_the_api_key() -> None:
    value, _ = ClientSecrets(("one", "two"), lambda: 0).make(1, {}, older=True, valid_sec=60)
    with pytest.raises(ApiError, match="expired") as caught:
        ClientSecrets(("one", "two"), lambda: 60).open(value)
    assert caught.value.status == 401
    for keys in (("one",), ("Two",), ()):
        with pytest.raises(ApiError, match="not one of this gateway's"):
            ClientSecrets(keys, lambda: 0).open(value)


def test_nothing_else_is_one() -> None:
    secrets = ClientSecrets(("one",), lambda: 0)
    value, _ = secrets.make(0, SESSION, older=False, valid_sec=60)
    chosen = random.Random(1)
    for _ in range(300):
        at = chosen.randrange(3, len(value))
        letter = chosen.choice("abcXYZ019-_")
        changed = value[:at] + letter + value[at + 1 :]
        # The last letter has bits that mean nothing.
        if letter != value[at] and at < len(value) - 1:
            with pytest.raises(ApiError):
                secrets.open(changed)
    for other in ("ek_", "ek_a", "ek_" + "A" * 43, value[:-5], "ek_é", value + "==="):
        if other != value + "===":
            with pytest.raises(ApiError):
                secrets.open(other)


def test_settings_that_fit_into_no_header_are_refused() -> None:
    session = {"prompt": "".join(map(chr, random.Random(1).choices(range(200, 5000), k=5000)))}
    with pytest.raises(ApiError, match=r"fit into a key of 6,000 characters"):
        ClientSecrets(("one",)).make(0, session, older=False, valid_sec=60)
