"""How many mutations each test makes: a few in the usual run, any number by HOSTILE_ROUNDS, from HOSTILE_SEED on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

_USUAL = 100

Seeds = Callable[[float], range]


@pytest.fixture(scope="session")
def seeds() -> Seeds:
    """The seeds of a test that makes `share` times the usual number of mutations."""
    rounds, first = int(os.environ.get("HOSTILE_ROUNDS", _USUAL)), int(os.environ.get("HOSTILE_SEED", "0"))
    return lambda share: range(first, first + max(1, round(rounds * share)))


@pytest.fixture(autouse=True)
def survived(request: pytest.FixtureRequest) -> Iterator[dict[str, int]]:
    """Counts of what came of the mutations, which `pytest -rP` prints."""
    counts: dict[str, int] = {}
    yield counts
    print(request.node.name, dict(sorted(counts.items())))
