"""What a recording's reader is told beside the words: what is missing, damaged, or was chosen for them."""

from __future__ import annotations


class Faults:
    """Warnings of one recording, each said once. Of one cause, such as a file that was cut, there is one warning."""

    def __init__(self) -> None:
        self._notes: list[str] = []
        self._damage: str | None = None
        self._reason: str | None = None
        self._missing_sec = 0.0

    def add(self, what: str, hint: str | None = None) -> None:
        note = f"{what} (hint: {hint})" if hint else what
        if note not in self._notes:
            self._notes.append(note)

    def damaged(self, reason: str, treatment: str = "what could be decoded was") -> None:
        """A part could not be decoded."""
        if self._damage is None:
            self._damage = f"the file is damaged or cut short ({reason}); {treatment}"
            self._reason = reason

    def missing(self, seconds: float) -> None:
        """Less is there than the header declares."""
        self._missing_sec += seconds

    @property
    def is_missing(self) -> bool:
        """Whether something is known to be missing."""
        return self._missing_sec > 0

    @property
    def loss(self) -> str | None:
        """How it is known that something is missing or damaged; None where all is there."""
        if self._missing_sec:
            return f"about {self._missing_sec:.1f} s that its header declares are missing"
        return self._reason

    @property
    def warnings(self) -> tuple[str, ...]:
        if self._missing_sec:
            return (f"the file is damaged or cut short: {self.loss}", *self._notes)
        return (self._damage, *self._notes) if self._damage else tuple(self._notes)
