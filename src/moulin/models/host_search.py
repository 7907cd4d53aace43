"""What the searches on the host do and our GPU engine does not."""

from __future__ import annotations

from moulin.decoding.options import DecodingOptions


def needs_host_search(options: DecodingOptions | None, *, hotwords: bool) -> str | None:
    """Why our GPU engine is not for these options, a clause; None where it is. `hotwords`: whether there are some for
    every request."""
    usual = options or DecodingOptions()
    if hotwords or usual.hotwords:
        return "it knows no hotwords"
    if usual.method == "fast_beam_search":
        return "it knows no fast_beam_search"
    if usual.lm_scale:
        return "it knows no language models"
    if usual.nbest > 1:
        return "it gives the best text alone"
    return "it skips no blank frames" if usual.blank_skip is not None else None
