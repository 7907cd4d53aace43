"""Secrets without a gateway: another worker, another time, another key."""

from __future__ import annotations

import random
from typing import Any

import pytest

from moulin.gateway.api_error import ApiError
from moulin.gateway.client_secrets import ClientSecret, new_secret, opened
from moulin.gateway.named_keys import named_keys

SESSION: dict[str, Any] = {"type": "transcription", "audio": {"input": {"transcription": {"prompt": "é, b"}}}}


def test_every_worker_with_the_keys_opens_what_another_made() -> None:
    value, expires_at = new_secret(b"two", SESSION, older=False, valid_sec=600, now=1000.5)
    assert expires_at == 1600
    assert value.startswith("ek_")
    assert value.isascii()
    assert not set(value) & set(" ,;\"'")
    for entries in (("one", "app two"), ("two",), ("x", "y", "two")):
        keys = named_keys(entries)
        assert opened(value, keys, now=1599.9) == ClientSecret(keys[len(keys) - 1], SESSION, False)
    assert new_secret(b"two", SESSION, older=False, valid_sec=600, now=1000.5)[0] != value


def test_they_expire_and_end_with_the_api_key() -> None:
    value, _ = new_secret(b"two", {}, older=True, valid_sec=60, now=0)
    with pytest.raises(ApiError, match="expired") as caught:
        opened(value, named_keys(("one", "two")), now=60)
    assert caught.value.status == 401
    for entries in (("one",), ("Two",), ()):
        with pytest.raises(ApiError, match="not one of this gateway's"):
            opened(value, named_keys(entries), now=0)


def test_without_keys_everybody_may_sign() -> None:
    value, _ = new_secret(None, SESSION, older=False, valid_sec=60)
    assert opened(value, ()).session == SESSION
    with pytest.raises(ApiError):
        opened(value, named_keys(("one",)))


def test_nothing_else_is_one() -> None:
    keys = named_keys(("one",))
    value, _ = new_secret(b"one", SESSION, older=False, valid_sec=60)
    chosen = random.Random(1)
    for _ in range(300):
        at = chosen.randrange(3, len(value) - 1)  # the last letter has bits that mean nothing
        letter = chosen.choice("abcXYZ019-_")
        if letter != value[at]:
            with pytest.raises(ApiError):
                opened(value[:at] + letter + value[at + 1 :], keys)
    for other in ("ek_", "ek_a", "ek_" + "A" * 43, value[:-5], "ek_é"):
        with pytest.raises(ApiError):
            opened(other, keys)


def test_settings_that_fit_into_no_header_are_refused() -> None:
    session = {"prompt": "".join(map(chr, random.Random(1).choices(range(200, 5000), k=5000)))}
    with pytest.raises(ApiError, match=r"fit into a key of 6,000 characters"):
        new_secret(b"one", session, older=False, valid_sec=60)
