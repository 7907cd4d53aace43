"""What the searches on the host do and our GPU engine does not."""

from __future__ import annotations

from moulin.decoding.options import DecodingOptions


def needs_host_search(options: DecodingOptions | None) -> str | None:
    """Why our GPU engine is not for these options, a clause; None where it is."""
    usual = options or DecodingOptions()
    if usual.method == "fast_beam_search":
        return "it knows no fast_beam_search"
    return "it skips no blank frames" if usual.blank_skip is not None else None
