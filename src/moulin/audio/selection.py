"""Which of a recording's tracks and channels are heard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moulin.errors import OptionsError
from moulin.options import option
from moulin.quoting import quoted

_SIDES = {"left": 1, "right": 2}


@dataclass(frozen=True, slots=True)
class Selection:
    """Tracks and channels of a recording; both count from 1."""

    help_section: ClassVar[str] = "Tracks and channels"

    channels: str = option(
        "mix",
        "One transcript of all channels, of one, or of each by itself.",
        metavar="mix|left|right|each|NUMBER",
    )
    track: str | None = option(
        None, "The audio track of a file with several.", metavar="NUMBER|all", usual="the default one, if it has sound"
    )

    def __post_init__(self) -> None:
        if self.channels not in ("mix", "each", *_SIDES) and not _is_number(self.channels):
            raise OptionsError(
                f"Expected channels to be mix, left, right, each or a number, got {quoted(self.channels)}"
            )
        if self.track is not None and self.track != "all" and not _is_number(self.track):
            raise OptionsError(f"Expected track to be a number or all, got {quoted(self.track)}")

    @property
    def is_single(self) -> bool:
        """Whether it makes one transcript."""
        return self.channels != "each" and self.track != "all"

    @property
    def channel_number(self) -> int | None:
        """The one channel that is heard, from 1; None for a mix and for each."""
        if self.channels in ("mix", "each"):
            return None
        return _SIDES.get(self.channels) or int(self.channels)

    @property
    def track_number(self) -> int | None:
        """The one track that is heard, from 1; None for the best and for all."""
        return None if self.track in (None, "all") else int(self.track or 0)


@dataclass(frozen=True, slots=True)
class StreamSelection(Selection):
    """The track and channel of a stream, which is one transcript."""

    channels: str = option("mix", "All channels mixed, or one.", metavar="mix|left|right|NUMBER")
    track: str | None = option(
        None, "The audio track of a file with several.", metavar="NUMBER", usual="the default one, if it has sound"
    )

    def __post_init__(self) -> None:
        Selection.__post_init__(self)
        if not self.is_single:
            got = "channels each" if self.channels == "each" else "track all"
            raise OptionsError(f"Expected one transcript of a stream, got {got}", hint="moulin transcribe takes it")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text) < 1000


MIX = Selection()
