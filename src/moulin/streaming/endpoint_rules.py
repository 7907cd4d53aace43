"""Rules that end a segment when its speaker pauses: sherpa-onnx's three (csrc/endpoint.h)."""

from __future__ import annotations

from dataclasses import dataclass, fields

from moulin.errors import OptionsError
from moulin.quoting import quoted


@dataclass(frozen=True, slots=True)
class EndpointRules:
    """A segment ends when one of the rules applies. Raises OptionsError for values that are no times."""

    rule1_min_trailing_silence_sec: float = 2.4
    """Silence that ends a segment even if nothing was said in it."""
    rule2_min_trailing_silence_sec: float = 1.2
    """Silence that ends a segment in which something was said."""
    rule3_min_utterance_length_sec: float = 20.0
    """Length at which a segment ends, pause or not."""

    def __post_init__(self) -> None:
        for rule in fields(self):
            value = getattr(self, rule.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:  # NaN neither
                raise OptionsError(f"Expected {rule.name} to be a number of seconds above 0, got {quoted(value)}")
