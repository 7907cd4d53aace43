"""Options of single verbs, made of the same fields as those of other verbs (`cli.flags`)."""

from __future__ import annotations

from typing import Annotated

from moulin.bundle.precision import Precision
from moulin.cli.flags import option_of
from moulin.cli.model_options import ModelOptions
from moulin.decoding.options import DecodingOptions, Method
from moulin.models.engine_choice import EngineChoice, EngineWish

EngineName = EngineWish

PrecisionOption = Annotated[Precision | None, option_of(EngineChoice, "precision")]
LanguageOption = Annotated[str | None, option_of(ModelOptions, "language")]
MethodOption = Annotated[Method | None, option_of(DecodingOptions, "method")]
BeamOption = Annotated[int | None, option_of(DecodingOptions, "beam")]
EngineOption = Annotated[EngineWish | None, option_of(EngineChoice, "kind")]
DeviceOption = Annotated[str, option_of(EngineChoice, "device")]


def decoding_changes(method: str | None, beam: int | None) -> dict[str, str | int]:
    """The options that were given, checked; the others are left to the server or the defaults."""
    changes = {name: value for name, value in (("method", method), ("beam", beam)) if value is not None}
    DecodingOptions().updated(changes)
    return changes
