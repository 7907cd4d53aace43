"""The place of the cache folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.errors import LaunchError
from moulin.launch.cache import cache_dir


def test_cache_dir_follows_xdg() -> None:
    assert cache_dir({"XDG_CACHE_HOME": "/var/cache/me"}) == Path("/var/cache/me/moulin")
    assert cache_dir({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache/moulin"
    assert cache_dir({}) == Path.home() / ".cache/moulin"


def test_a_user_without_a_home_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number alone."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(LaunchError, match="XDG_CACHE_HOME"):
        cache_dir({})
    assert cache_dir({"XDG_CACHE_HOME": "/cache"}) == Path("/cache/moulin")
