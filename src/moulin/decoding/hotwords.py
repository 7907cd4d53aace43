"""Hotwords: phrases that a search is to prefer, as people write them in files, on the command line and in JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from moulin.errors import OptionsError
from moulin.options import Bounds
from moulin.quoting import quoted

MOST_HOTWORDS = 1000
"""Phrases of a request."""
MOST_SERVER_HOTWORDS = 100_000
"""Phrases of a server's own list."""
MOST_CHARS = 100
"""Characters of a phrase."""
SCORES = Bounds(above=0, at_most=100)
"""The bonus for each token; beyond it nothing is heard but hotwords."""

_MOST_FILE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Hotword:
    """A phrase, and the bonus for each of its tokens; None takes `DecodingOptions.hotwords_score`. An `optional` one is
    left out where the model cannot spell it. Raises OptionsError."""

    phrase: str
    score: float | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.phrase, str) or not self.phrase.strip():
            raise OptionsError(f"Expected a hotword of letters, got {quoted(self.phrase)}")
        if len(self.phrase) > MOST_CHARS:
            raise OptionsError(f"Expected hotwords of at most {MOST_CHARS} characters, got {quoted(self.phrase)}")
        if not isinstance(self.optional, bool):
            raise OptionsError(f"Expected optional of a hotword to be true or false, got {quoted(self.optional)}")
        if self.score is None:
            return
        is_number = isinstance(self.score, int | float) and not isinstance(self.score, bool)
        if not is_number or not SCORES.hold(self.score):
            raise OptionsError(
                f"Expected the score of hotword {quoted(self.phrase)} {SCORES}, got {quoted(self.score)}"
            )


class Hotwords(tuple[Hotword, ...]):
    """Hotwords that know their hash: automata are kept by their content, and a list has a thousand phrases."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return super().__hash__()

    def __reduce__(self) -> tuple[type[Hotwords], tuple[tuple[Hotword, ...]]]:
        return Hotwords, (tuple(self),)  # other processes have other hashes


def hotwords_of(values: Any) -> Hotwords:
    """The hotwords of a request: a list of phrases or of `{"phrase": …, "score": …, "optional": …}`. Raises
    OptionsError."""
    if isinstance(values, Hotwords):
        return values
    if not isinstance(values, list | tuple):
        raise OptionsError(
            f"Expected hotwords to be a list of phrases, got {quoted(values)}", hint='for example ["nvidia", "moulin"]'
        )
    if len(values) > MOST_HOTWORDS:
        raise OptionsError(
            f"Expected at most {MOST_HOTWORDS:,} hotwords in a request, got {len(values):,}",
            hint=f"a server's own list (moulin serve --hotwords FILE) may have {MOST_SERVER_HOTWORDS:,}",
        )
    return Hotwords(value if isinstance(value, Hotword) else _hotword(value) for value in values)


def _hotword(value: object) -> Hotword:
    if isinstance(value, str):
        return Hotword(value)
    if not isinstance(value, dict) or not {"phrase"} <= value.keys() <= {"phrase", "score", "optional"}:
        raise OptionsError(f'Expected a hotword to be text or {{"phrase": …, "score": …}}, got {quoted(value)}')
    return Hotword(**value)


def given_hotwords(file_or_words: str, most: int = MOST_HOTWORDS) -> tuple[Hotword, ...]:
    """The hotwords of a file, one a line, or those written out with commas between: `nvidia, open ai :2.0`.

    Lines and words are in sherpa-onnx's form, `PHRASE` or `PHRASE :SCORE`. Raises OptionsError.
    """
    file = Path(file_or_words)
    if _is_file(file):
        return _named(_lines(file), most, f"{file}")
    if file.suffix == ".txt" or "/" in file_or_words:
        raise OptionsError(f"There is no file of hotwords {quoted(file_or_words)}")
    parts = file_or_words.replace("\n", ",").split(",")
    return _named(((f"--hotwords, word {number}", part) for number, part in enumerate(parts, 1)), most, "--hotwords")


def as_json(hotwords: Sequence[Hotword]) -> list[str | dict[str, Any]]:
    """`hotwords` as `hotwords_of` takes them from JSON."""
    return [one.phrase if one == Hotword(one.phrase) else _fields(one) for one in hotwords]


def _fields(one: Hotword) -> dict[str, Any]:
    score = {} if one.score is None else {"score": one.score}
    return {"phrase": one.phrase, **score, **({"optional": True} if one.optional else {})}


def hotwords_text(hotwords: Sequence[Hotword]) -> str:
    """The content of a file with `hotwords`."""
    return "".join(f"{one.phrase}{'' if one.score is None else f' :{one.score!r}'}\n" for one in hotwords)


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):  # a long list of words is no name of a file
        return False


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    try:
        if file.stat().st_size > _MOST_FILE_BYTES:
            raise OptionsError(f"Expected a file of at most {_MOST_FILE_BYTES >> 20} MB of hotwords, got {file}")
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise OptionsError(f"{file} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise OptionsError(f"Cannot read the hotwords in {file}: {error.strerror}") from None
    for number, line in enumerate(text.split("\n"), 1):
        yield f"{file}, line {number}", line


def _named(lines: Iterator[tuple[str, str]], most: int, where: str) -> tuple[Hotword, ...]:
    """The hotwords of `lines`, each with its place in messages; empty lines are left out."""
    found = []
    for place, line in lines:
        if line.strip():
            found.append(_of_line(line, place))
            if len(found) > most:
                raise OptionsError(f"Expected at most {most:,} hotwords in {where}, got more")
    if not found:
        raise OptionsError(f"There are no hotwords in {where}", hint="leave out --hotwords, or name words or a file")
    return tuple(found)


def _of_line(line: str, place: str) -> Hotword:
    """`PHRASE` or `PHRASE :SCORE`."""
    words = line.split()
    score = None
    if words[-1][0] == ":":
        try:
            score = float(words.pop()[1:])
        except ValueError:
            raise OptionsError(f"Expected a number after ':' in {place}, got {quoted(line.strip())}") from None
    if not words or any(word[0] == ":" for word in words):
        raise OptionsError(f"Expected 'PHRASE' or 'PHRASE :SCORE' in {place}, got {quoted(line.strip())}")
    try:
        return Hotword(" ".join(words), score)
    except OptionsError as error:
        raise OptionsError(f"{error.message}, in {place}") from None
