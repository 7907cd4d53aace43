"""Processes that end one after another without having done anything: when it is enough."""

from __future__ import annotations

from moulin.errors import EngineError

_MAX_LOST = 5


class Losses:
    """Counts processes of one kind that have ended since the last one did something."""

    def __init__(self, kind: str) -> None:
        self._kind, self._lost = kind, 0

    def none(self) -> None:
        """A process has done something."""
        self._lost = 0

    def note(self, how: str) -> None:
        """Another one has ended, `how`. Raises EngineError when too many have."""
        self._lost += 1
        if self._lost > _MAX_LOST:
            raise EngineError(
                f"Processes end again and again ({how}): the {self._kind}s",
                hint="the lines before say why; run the command again to go on where it stopped",
            )
