"""What comes of one mutation: a result, or an error of moulin's own in one short line."""

from __future__ import annotations

from collections.abc import Callable

from moulin.errors import MoulinError


def outcome(call: Callable[[], object], seed: int, counts: dict[str, int], *, error: type[MoulinError]) -> None:
    """Count the result of `call`, or its `error`. Anything else fails the test, and names the seed."""
    try:
        call()
    except error as refusal:
        text = str(refusal)
    except Exception as other:
        raise AssertionError(f"seed {seed}") from other
    else:
        counts["accepted"] = counts.get("accepted", 0) + 1
        return
    assert "\n" not in text, (seed, text[:3000])
    assert len(text) < 3000, (seed, text[:3000])
    counts["refused"] = counts.get("refused", 0) + 1
