"""`moulin lm`: language models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moulin.cli.interrupt import unfinished
from moulin.cli.messages import echo
from moulin.cli.steps import step
from moulin.cli.verbs import VerbApp
from moulin.errors import OptionsError

if TYPE_CHECKING:
    from moulin.bundle.tokens import TokenTable

app = VerbApp(
    help="Build language models.",
    epilog="Example: moulin lm build text.txt --tokens models/zipformer --order 3 --to lm.arpa",
)


@app.callback()
def _lm() -> None:
    pass


@app.command(epilog="Example: moulin lm build calls.txt --to lm.arpa && moulin serve models/zipformer --lm lm.arpa")
def build(
    text: Annotated[list[Path], typer.Argument(metavar="TEXT", help="Files with a sentence on each line.")],
    to: Annotated[Path, typer.Option(metavar="FILE", help="The ARPA file to write, gzipped where it ends in .gz.")],
    tokens: Annotated[
        Path | None,
        typer.Option(metavar="MODEL", help="Count the tokens of this model, or tokens.txt.  [default: words]"),
    ] = None,
    order: Annotated[int, typer.Option(min=1, max=10, help="The longest n-grams.")] = 3,
) -> None:
    """Make an n-gram language model of text, by words or by a model's tokens.

    Interpolated modified Kneser-Ney smoothing. Words are taken as they are written: write them as the model does.
    """
    from moulin.language_models.arpa import write_arpa
    from moulin.language_models.kneser_ney import kneser_ney

    lines = _lines(text)
    with step(f"Counting the n-grams of {', '.join(map(str, text))}"):
        ngrams = kneser_ney(
            (line.split() for line in lines) if tokens is None else _spelt(lines, _table(tokens)), order
        )
    with unfinished(to.with_name(f".{to.name}.part")) as part, step(f"Writing {to}"):
        write_arpa(ngrams, part, gzipped=to.suffix == ".gz")
        part.replace(to)
    counts = ", ".join(f"{len(level.words):,} {number}-grams" for number, level in enumerate(ngrams.levels, 1))
    typer.echo(f"Wrote {to}: {counts}", err=True)


def _lines(files: list[Path]) -> Iterator[str]:
    for file in files:
        try:
            with file.open(encoding="utf-8-sig") as opened:
                yield from opened
        except UnicodeDecodeError as error:
            raise OptionsError(f"{file} is not UTF-8 text (byte {error.start} of a block)") from None
        except OSError as error:
            raise OptionsError(f"Cannot read the text in {file}: {error.strerror}") from None


def _spelt(lines: Iterator[str], table: TokenTable) -> Iterator[list[str]]:
    """Each line in tokens; says how many cannot be spelt and are left out."""
    left_out, example = 0, ""
    for line in lines:
        if not line.strip():
            continue
        try:
            yield [table.symbols[token] for token in table.spell(line)]
        except OptionsError as error:
            left_out, example = left_out + 1, example or error.message
    if left_out:
        echo(f"{left_out:,} lines cannot be spelt in the model's tokens and are left out: {example}", err=True)


def _table(model: Path) -> TokenTable:
    """The tokens of a model's folder, or of a tokens.txt with perhaps a bpe.model beside it."""
    from moulin.bundle.load_model import load_model
    from moulin.bundle.tokens import read_tokens

    if not model.is_file():
        return load_model(model).tokens
    with model.open("rb") as opened:
        size = sum(1 for line in opened if line.strip() and not line.startswith(b"#"))
    spelling = model.with_name("bpe.model")
    return read_tokens(model, size, spelling if spelling.is_file() else None)
