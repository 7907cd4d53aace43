"""Keys that change while the gateway runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from moulin.gateway.api_error import ApiError
from moulin.gateway.api_keys import ApiKeys
from moulin.gateway.named_keys import key_entries
from moulin.gateway.settings import gateway_settings

Keys = Callable[[], ApiKeys]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("app old\n")
    return path


@pytest.fixture
def keys(file: Path, clock: Clock) -> ApiKeys:
    return ApiKeys(gateway_settings(api_keys=key_entries(file), api_keys_file=file), clock)


def refused(keys: ApiKeys, key: str) -> bool:
    with pytest.raises(ApiError) as caught:
        keys.name(key)
    return caught.value.status == 401


def test_names(keys: ApiKeys) -> None:
    assert keys
    assert keys.name("old") == "app"
    assert refused(keys, "")
    assert refused(keys, "new")


def test_a_file_that_has_changed_is_read_again(keys: ApiKeys, file: Path, clock: Clock) -> None:
    assert keys.name("old") == "app"
    file.write_text("app new\nother third\n")
    assert keys.name("old") == "app"  # it is looked at once a second
    clock.now += 1
    assert keys.name("new") == "app"
    assert keys.name("third") == "other"
    assert refused(keys, "old")


def test_a_file_that_is_replaced_is_read_again(keys: ApiKeys, file: Path, clock: Clock) -> None:
    """As editors and Kubernetes do it; of the same size and time."""
    other = file.with_name("other")
    other.write_text("app new\n")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)
    clock.now += 1
    assert keys.name("new") == "app"


@pytest.mark.parametrize("text", ["", "# none\n", "a b c\n", None])
def test_of_a_file_that_cannot_be_used_the_keys_stay(
    keys: ApiKeys, file: Path, clock: Clock, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.now += 1
            assert keys.name("old") == "app"
    (line,) = caplog.messages
    assert line.startswith("The API keys stay as they were: ")
    assert "old" not in line
    file.write_text("app new\n")
    clock.now += 1
    assert keys.name("new") == "app"


def test_without_a_file_nothing_is_looked_at() -> None:
    assert ApiKeys(gateway_settings(api_keys=["secret"])).name("secret") == "key 0"
    assert not ApiKeys(gateway_settings())
