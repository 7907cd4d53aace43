"""Options that the benchmarks share, and the values made from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.options import Bounds, held, option

if TYPE_CHECKING:
    from moulin.bundle.choice import Mode
    from moulin.bundle.spec import ModelSpec
    from moulin.evaluate.normalizer import TextNormalizer
    from moulin.evaluate.results.setup import Data
    from moulin.evaluate.targets.target import ServerSettings
    from moulin.evaluate.utterance import Utterance

AT_LEAST_1 = Bounds(at_least=1)

ToOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="Write the result into it, any number of times: .json figures, .html a page, .md its text, .jsonl a line "
        "for every request.",
    ),
]
ApiKeyOption = Annotated[
    str, typer.Option(envvar="MOULIN_API_KEY", show_envvar=True, help="For targets at an address that want one.")
]


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """The model of a benchmark, and its engine."""

    help_section: ClassVar[str] = "Model"

    model: Path | None = option(None, "The model's folder.", usual="the demo model")
    size: str | None = option(
        None, "A model of a published size with random weights instead, e.g. zipformer2-66m, zipformer2-causal-66m."
    )
    engine: EngineChoice = held(EngineChoice)

    def __post_init__(self) -> None:
        if self.model is not None and self.size is not None:
            raise OptionsError("Expected --model or --size, got both")
        if self.engine.kind == "tensorrt" and self.engine.precision not in (None, "fp16"):
            raise OptionsError(f"TensorRT is measured in fp16, got {self.engine.precision}")

    @contextmanager
    def opened(self, expect: Mode | None) -> Iterator[tuple[ModelSpec, EngineChoice]]:
        """The model's spec, for reports, and the settled engine. A model of `size` lasts as long as the context.

        Raises BundleError, OptionsError, EngineError.
        """
        from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
        from moulin.launch.workspace import workspace

        if self.size is None:
            demo = DEMO_STREAMING_MODEL if expect == "streaming" else DEMO_MODEL
            yield self._loaded(self.model or demo, expect)
            return
        from moulin.bundle.checkpoint_files import require_torch

        require_torch()
        from moulin.evaluate.speaking_model import write_speaking_model

        with workspace("bench-size") as folder:
            typer.echo(f"Writing a model of the size {self.size} …", err=True)
            (folder / self.size).mkdir()
            device = self.engine.device
            write_speaking_model(self.size, folder / self.size, streaming=expect == "streaming", device=device)
            yield self._loaded(folder / self.size, expect)

    @contextmanager
    def opened_for(self, names: Sequence[str], expect: Mode | None) -> Iterator[tuple[ModelSpec | None, EngineChoice]]:
        """`opened` for the targets called `names`; None where all are at an address and no model is named."""
        if self.model is None and self.size is None and all("=" in name for name in names):
            yield None, self.engine
            return
        with self.opened(expect) as found:
            yield found

    def _loaded(self, model: Path, expect: Mode | None) -> tuple[ModelSpec, EngineChoice]:
        from moulin.cli.runnable_model import runnable_model
        from moulin.models.engines import check_engine
        from moulin.models.load_for_engine import load_for_engine

        folder = runnable_model(model, self.engine, streaming=expect == "streaming")
        spec, settled = load_for_engine(folder, self.engine, expect)
        check_engine(spec, settled)
        return spec, settled


@dataclass(frozen=True, slots=True)
class MeasuredOn:
    """Options of the recordings to measure on, and of the comparison of texts."""

    help_section: ClassVar[str] = "Recordings"

    data: Path | None = option(
        None,
        "What to measure on: JSONL (audio, text), Lhotse cuts or recordings, Kaldi's folder or wav.scp, or a folder of "
        "audio with a .txt beside each.",
        usual="the demo recordings",
    )
    text: Path | None = option(None, "The transcripts, where Kaldi's text or Lhotse's supervisions lie elsewhere.")
    normalizer: Literal["none", "case", "basic"] = option(
        "basic", "What is made of both texts: basic (NFKC, upper case, no punctuation), case (upper case), none."
    )
    alike: list[str] | None = option(
        None,
        "Words that count as others, any number of times.",
        metavar="WORD=OTHER",
        usual="for the demo recordings OH=ZERO",
    )

    def read(self) -> Recordings:
        """Read the manifest. Raises OptionsError."""
        from moulin.demo.files import DEMO_MANIFEST
        from moulin.evaluate.manifest import read_manifest
        from moulin.evaluate.normalizer import TextNormalizer, parse_alike
        from moulin.evaluate.results.setup import Data

        # The speakers of the demo recordings say OH for 0; the references write ZERO.
        pairs = ["OH=ZERO"] if self.alike is None and self.data is None else self.alike or ()
        normalize = TextNormalizer(self.normalizer, parse_alike(pairs, self.normalizer))
        utterances = read_manifest(self.data or DEMO_MANIFEST, self.text)
        name = self.data.name if self.data else "demo recordings"
        return Recordings(Data(name, len(utterances)), utterances, normalize)


@dataclass(frozen=True, slots=True)
class Recordings:
    """Recordings to measure on, with their references, and the comparison of texts."""

    data: Data
    utterances: Sequence[Utterance]
    normalize: TextNormalizer


@dataclass(frozen=True, slots=True)
class StartedWith:
    """Options of the servers that are started for a run."""

    help_section: ClassVar[str] = "Servers"

    sherpa_options: str | None = option(None, "Options of sherpa-onnx's server: max-batch-size=8,num-work-threads=2,…")
    moulin_options: str | None = option(None, "Options of moulin's service: instances=4,max-streams=8000,…")

    def settings(self, engine: EngineChoice, decoding: dict[str, str | int], api_key: str) -> ServerSettings:
        """Settings with which targets are started. Raises OptionsError."""
        from moulin.evaluate.targets.target import ServerSettings

        sherpa = _pairs(self.sherpa_options, "--sherpa-options")
        return ServerSettings(engine, decoding, sherpa, _pairs(self.moulin_options, "--moulin-options"), api_key)


def positive_numbers(text: str, option: str, what: str) -> list[int]:
    """The whole numbers above 0 in `text`, separated by commas. Raises OptionsError."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise OptionsError(f"Expected numbers of {what} separated by commas for {option}, got {text!r}")
    return numbers


def _pairs(text: str | None, option: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in (text or "").split(",") if part]
    if not all(name and value for name, _, value in pairs):
        raise OptionsError(f"Expected NAME=VALUE separated by commas for {option}, got {text!r}")
    return {name.removeprefix("--"): value for name, _, value in pairs}
