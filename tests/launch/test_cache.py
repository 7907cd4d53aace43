"""The place of the cache folder."""

from __future__ import annotations

from pathlib import Path

from moulin.launch.cache import cache_dir


def test_cache_dir_follows_xdg() -> None:
    assert cache_dir({"XDG_CACHE_HOME": "/var/cache/me"}) == Path("/var/cache/me/moulin")
    assert cache_dir({"XDG_CACHE_HOME": "relative"}) == Path.home() / ".cache/moulin"
    assert cache_dir({}) == Path.home() / ".cache/moulin"
