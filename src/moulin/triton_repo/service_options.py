"""The operator's options of both services."""

from __future__ import annotations

import re
from dataclasses import dataclass

from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.models.language_model_files import LanguageModelFiles
from moulin.options import Bounds, check_options, held, option
from moulin.triton_repo import contract

_MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class ServiceOptions:
    """Options of a service by one model in Triton; `OfflineOptions` and `StreamingOptions` add more. Raises
    OptionsError."""

    model_name: str = contract.MODEL_NAME
    engine: EngineChoice = held(EngineChoice)
    instances: int = option(
        1,
        "Processes that each hold the model and share the threads; with several GPUs on each.",
        bounds=Bounds(1, at_most=1024),
    )
    hotwords: str | None = option(
        None,
        "Hotwords of all requests: a file with one PHRASE or PHRASE :SCORE a line, or words with commas between.",
        metavar="FILE|WORDS",
    )
    lm: LanguageModelFiles = held(LanguageModelFiles)
    gpus: tuple[int, ...] = ()
    """Several GPUs, each of which gets `instances`; the device of `engine` is one of them. None where that is all."""
    encoder: str = ""
    """The encoder's or the checkpoint's file, relative to the version's folder; filled in when the model is built."""

    @property
    def num_instances(self) -> int:
        """On all devices together."""
        return self.instances * max(1, len(self.gpus))

    def __post_init__(self) -> None:
        if not _MODEL_NAME.fullmatch(self.model_name):
            raise OptionsError(
                f"Expected a model name of letters, digits, '_', '-' and '.', got {self.model_name!r}",
                hint="it is the name of a folder and a part of the HTTP address",
            )
        check_options(self)
