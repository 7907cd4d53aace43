"""Options that the benchmarks share, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from moulin.bundle.precision import Precision
from moulin.cli.arguments import EngineName
from moulin.errors import OptionsError

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec
    from moulin.evaluate.normalizer import TextNormalizer
    from moulin.evaluate.results.setup import Data
    from moulin.evaluate.utterance import Utterance

# Literals are spelled out again because typer reads them when the command is built.
NormalizerName = Literal["none", "case", "basic"]

DataOption = Annotated[
    Path | None,
    typer.Option(
        help="What to measure on: JSONL (audio, text), Lhotse cuts or recordings, Kaldi's folder or wav.scp, or a "
        "folder of audio with a .txt beside each.  [default: the demo recordings]"
    ),
]
TextOption = Annotated[
    Path | None, typer.Option(help="The transcripts, where Kaldi's text or Lhotse's supervisions lie elsewhere.")
]
NormalizerOption = Annotated[
    NormalizerName,
    typer.Option(help="What is made of both texts: basic (NFKC, upper case, no punctuation), case (upper case), none."),
]
AlikeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="WORD=OTHER", help="Words that count as others, any number of times.  [demo: OH=ZERO]"),
]
ToOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="Write the result into it, any number of times: .json figures, .html a page, .md its text, .jsonl a line "
        "for every request.",
    ),
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="CPU threads of every target.  [default: all]")]
SherpaOption = Annotated[
    str, typer.Option(help="Options of sherpa-onnx's server: max-batch-size=8,num-work-threads=2,…")
]
TriesOption = Annotated[int, typer.Option(min=1, help="How often a run that other processes disturb is made, at most.")]
ApiKeyOption = Annotated[
    str, typer.Option(envvar="MOULIN_API_KEY", show_envvar=True, help="For targets at an address that want one.")
]


SizeOption = Annotated[
    str | None,
    typer.Option(help="A model of a published size with random weights instead, e.g. zipformer2-66m."),
]


@contextmanager
def measured_model(
    model: Path | None,
    size: str | None,
    precision: Precision | None,
    engine: EngineName | None,
    device: str,
    expect: Literal["offline", "streaming"],
) -> Iterator[ModelSpec]:
    """The model in the folder `model`, by default the demo model, or one of `size` that is made for it.

    Raises as `load_measured_model` does.
    """
    from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
    from moulin.launch.workspace import workspace

    if size is None:
        demo = DEMO_STREAMING_MODEL if expect == "streaming" else DEMO_MODEL
        yield load_measured_model(model or demo, precision, engine, device, expect)
        return
    if model is not None:
        raise OptionsError("Expected --model or --size, got both")
    from moulin.bundle.checkpoint_files import require_torch

    require_torch()
    from moulin.evaluate.speaking_model import write_speaking_model

    with workspace("bench-size") as folder:
        typer.echo(f"Writing a model of the size {size} …", err=True)
        (folder / size).mkdir()
        write_speaking_model(size, folder / size, streaming=expect == "streaming", device=device)
        yield load_measured_model(folder / size, precision, engine, device, expect)


def load_measured_model(
    model: Path,
    precision: Precision | None,
    engine: EngineName | None,
    device: str,
    expect: Literal["offline", "streaming"] | None,
) -> ModelSpec:
    """The model of a benchmark, by `runnable_model`. Raises BundleError, OptionsError, EngineError."""
    from moulin.cli.runnable_model import runnable_model
    from moulin.models.engine_choice import EngineChoice
    from moulin.models.engines import check_engine
    from moulin.models.load_for_engine import load_for_engine

    if engine == "tensorrt" and precision not in (None, "fp16"):
        raise OptionsError(f"TensorRT is measured in fp16, got {precision}")
    choice = EngineChoice(engine, device, precision=precision)
    folder = runnable_model(model, choice, streaming=expect == "streaming")
    spec, settled = load_for_engine(folder, choice, expect)
    check_engine(spec, settled)
    return spec  # so that reports say it


@dataclass(frozen=True, slots=True)
class Recordings:
    """What is measured on: recordings with their references, and how texts are compared."""

    data: Data
    utterances: Sequence[Utterance]
    normalize: TextNormalizer


def read_recordings(data: Path | None, text: Path | None, normalizer: str, alike: Sequence[str] | None) -> Recordings:
    """The recordings of `data`, by default the demo recordings, whose speakers say OH for 0 where the references write
    ZERO. Raises OptionsError."""
    from moulin.demo.files import DEMO_MANIFEST
    from moulin.evaluate.manifest import read_manifest
    from moulin.evaluate.normalizer import TextNormalizer, parse_alike
    from moulin.evaluate.results.setup import Data

    pairs = ["OH=ZERO"] if alike is None and data is None else alike or ()
    normalize = TextNormalizer(normalizer, parse_alike(pairs, normalizer))
    utterances = read_manifest(data or DEMO_MANIFEST, text)
    return Recordings(Data(data.name if data else "demo recordings", len(utterances)), utterances, normalize)


def all_cpus(threads: int | None) -> int:
    import os

    return threads or len(os.sched_getaffinity(0))


def sherpa_settings(text: str) -> dict[str, str]:
    """--sherpa-options. Raises OptionsError."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    if not all(name and value for name, _, value in pairs):
        raise OptionsError(f"Expected NAME=VALUE separated by commas for --sherpa-options, got {text!r}")
    return {name.removeprefix("--"): value for name, _, value in pairs}


def positive_numbers(text: str, option: str, what: str) -> list[int]:
    """Whole numbers above 0 that commas separate. Raises OptionsError."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise OptionsError(f"Expected numbers of {what} separated by commas for {option}, got {text!r}")
    return numbers
