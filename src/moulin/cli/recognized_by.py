"""The recogniser of `moulin transcribe` and `moulin stream`: a server, or a model in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moulin.cli.model_options import language_option
from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.models.language_model_files import NO_FILES, LanguageModelFiles
from moulin.options import held, option
from moulin.triton_repo.contract import MODEL_NAME

DEFAULT_URL = "localhost:8001"


@dataclass(frozen=True, slots=True)
class RecognizedBy:
    """The model `name` on the server at `url`; or `model` by `engine`, without a server. Raises OptionsError."""

    url: str | None = option(None, "gRPC address of the server.", usual=DEFAULT_URL)
    model: Path | None = option(None, "Recognise in this process with this model, no server.")
    name: str = option(MODEL_NAME, "The model's name in Triton.")
    engine: EngineChoice = held(EngineChoice)
    lm: LanguageModelFiles = held(LanguageModelFiles)
    language: str | None = language_option()

    def __post_init__(self) -> None:
        if self.url is not None and self.model is not None:
            raise OptionsError("Expected --url or --model, got both", hint="--model recognises without a server")
        if self.model is not None and self.name != MODEL_NAME:
            raise OptionsError(
                f"Expected --name with a server, got --name {self.name} with --model",
                hint="--model recognises without a server; --name is a model's name there",
            )

        if self.lm != NO_FILES and self.model is None:
            raise OptionsError(
                "Expected --lm with --model, got a server", hint="a server has its own: moulin serve --lm FILE"
            )

    @property
    def address(self) -> str:
        return self.url or DEFAULT_URL

    def runnable(self, *, streaming: bool) -> Path | None:
        """The files of `model` for `engine`, by `runnable_model`; None where a server recognises."""
        from moulin.cli.runnable_model import runnable_model

        if self.model is None:
            return None
        return runnable_model(self.model, self.engine, streaming=streaming, language=self.language)
