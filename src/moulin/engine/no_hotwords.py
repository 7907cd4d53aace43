"""The error of hotwords where nothing uses them."""

from __future__ import annotations

from moulin.errors import OptionsError


def no_hotwords(*, ctc: bool = False) -> OptionsError:
    """`ctc` says that a CTC head is decoded."""
    if ctc:
        return OptionsError(
            "Expected no hotwords: they are for a transducer's search, and here a CTC head is decoded",
            hint="leave out --head ctc, or the hotwords",
        )
    return OptionsError(
        "Expected no hotwords: the layout ensemble does not use them yet",
        hint="leave out --layout ensemble: the other layout does, on every engine",
    )
