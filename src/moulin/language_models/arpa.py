"""Files of n-grams in the ARPA form, plain or gzipped, as SRILM, KenLM and Icefall's scripts write them.

Lines are read in blocks, and of a block all lines at once: a million n-grams take seconds, and no more memory than
their arrays and the words.
"""

from __future__ import annotations

import codecs
import gzip
import math
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from moulin.errors import BundleError
from moulin.language_models.ngrams import Level, Ngrams
from moulin.quoting import quoted

MOST_ORDER = 10
MOST_NGRAMS = 200_000_000
MOST_WORDS = 1 << 24

_BLOCK_BYTES = 1 << 22
_MOST_LINE_BYTES = 1 << 16
_LINES = 1 << 16
_MOST = 1000.0
"""The largest magnitude of a logarithm with base 10: -99 is usual for "never". A smaller probability (-inf) counts as
this one, so that sums and differences of scores are finite."""
_LN_10 = math.log(10)
_COUNT = re.compile(rb"ngram\s+(\d{1,3})\s*=\s*(\d{1,12})\s*")
_GZIP = b"\x1f\x8b"
_KENLM = b"mmap lm http://kheafield.com/code"
_OPENFST = b"\xd6\xfd\xb2\x7e"


def read_arpa(file: Path) -> Ngrams:
    """The n-grams in `file`. Raises BundleError, with the number of the line that is wrong."""
    try:
        if not file.is_file():
            raise BundleError(f"There is no file of n-grams {file}")
        with file.open("rb") as raw:
            begin = raw.read(len(_KENLM))
        if begin == _KENLM:
            raise BundleError(
                f"{file} is KenLM's binary form, and moulin reads the ARPA file that it was made of",
                hint="give the ARPA, plain or gzipped",
            )
        if begin.startswith(_OPENFST):
            raise BundleError(
                f"{file} is an FST of n-grams, and moulin reads the ARPA file that it was made of",
                hint="give the ARPA, plain or gzipped",
            )
        unpack: Callable[[Path], IO[bytes]] = gzip.open if begin.startswith(_GZIP) else _open  # type: ignore[assignment]
        with unpack(file) as opened:
            return _Reader(file, opened).read()
    except (OSError, EOFError, zlib.error) as error:
        raise BundleError(f"Cannot read the n-grams in {file}: {error}") from None


def _open(file: Path) -> IO[bytes]:
    return file.open("rb")


def write_arpa(ngrams: Ngrams, file: Path, *, gzipped: bool = False) -> None:
    """Write `ngrams`, all of whose words are single words. Raises OSError."""
    words = np.array(ngrams.words, dtype=np.object_)
    with gzip.open(file, "wt", encoding="utf-8") if gzipped else file.open("w", encoding="utf-8") as to:
        to.write("\\data\\\n")
        for order, level in enumerate(ngrams.levels, 1):
            to.write(f"ngram {order}={len(level.words)}\n")
        for order, level in enumerate(ngrams.levels, 1):
            to.write(f"\n\\{order}-grams:\n")
            highest = order == ngrams.order
            of_level = zip(
                words[level.words].tolist(),
                (level.log_probs / _LN_10).tolist(),
                (level.backoffs / _LN_10).tolist(),
                strict=True,
            )
            for spelt, log_prob, backoff in of_level:
                weight = "" if highest else f"\t{backoff:.7g}"
                to.write(f"{log_prob:.7g}\t{' '.join(spelt)}{weight}\n")
        to.write("\n\\end\\\n")


class _Reader:
    def __init__(self, file: Path, opened: IO[bytes]) -> None:
        self._file = file
        self._blocks = self._in_blocks(opened)
        self._lines: list[bytes] = []
        self._at = self._before = 0
        self._ids: dict[bytes, int] = {}

    def read(self) -> Ngrams:
        counts = self._counts()
        levels = []
        for order, count in enumerate(counts, 1):
            if self._next() != b"\\%d-grams:" % order:
                self._fail(f"\\{order}-grams:")
            levels.append(self._level(order, count))
        if self._next() != b"\\end\\":
            self._fail("\\end\\, as there are as many n-grams as the header says")
        try:
            words = [word.decode() for word in self._ids]
        except UnicodeDecodeError as error:
            raise BundleError(f"{self._file} has a word that is not UTF-8: {quoted(error.object)}") from None
        return Ngrams(words, levels)

    def _counts(self) -> list[int]:
        """The number of n-grams of each order."""
        line = self._next()
        if line is not None:
            line = line.removeprefix(codecs.BOM_UTF8)
        while line is not None and line != b"\\data\\":  # comments may come first
            line = self._next()
        if line is None:
            raise BundleError(f"{self._file} is no ARPA file of n-grams: it has no line \\data\\")
        counts: list[int] = []
        while found := _COUNT.fullmatch(self._next() or b""):
            order, count = map(int, found.groups())
            if order != len(counts) + 1 or order > MOST_ORDER:
                self._fail(f"the order {len(counts) + 1} of at most {MOST_ORDER}")
            counts.append(count)
            if sum(counts) > MOST_NGRAMS or counts[0] > MOST_WORDS:
                self._fail(f"at most {MOST_WORDS:,} words and {MOST_NGRAMS:,} n-grams")
        if not counts or not counts[0]:
            self._fail("ngram 1=COUNT, of at least one word")
        self._at -= 1  # the line behind the last
        return counts

    def _level(self, order: int, count: int) -> Level:
        words: list[NDArray[Any]] = []
        numbers: list[NDArray[Any]] = []
        while count:
            first, lines = self._take(min(count, _LINES))
            count -= len(lines)
            rows = [line.split() for line in lines]
            try:
                numbers.append(self._numbers(order, rows))
                words.append(self._words(order, rows))
            except (ValueError, KeyError, IndexError):
                self._fault(order, first, rows)
        both = np.concatenate(numbers, axis=1) if numbers else np.zeros((2, 0), np.float32)
        spelt = np.concatenate(words) if words else np.zeros((0, order), np.int32)
        return Level(spelt, both[0], both[1])

    def _words(self, order: int, rows: list[list[bytes]]) -> NDArray[Any]:
        """int32 [M, order]. Raises KeyError for an unknown word, ValueError for a unigram that is there already."""
        ids = self._ids
        if order == 1:
            before, new = len(ids), [row[1] for row in rows]
            if len(set(new)) < len(new) or not ids.keys().isdisjoint(new):
                raise ValueError
            ids.update(zip(new, range(before, before + len(new)), strict=True))
            return np.arange(before, len(ids), dtype=np.int32)[:, None]
        columns = [np.fromiter(map(ids.__getitem__, [row[at] for row in rows]), np.int32, len(rows))
                   for at in range(1, order + 1)]  # fmt: skip
        return np.stack(columns, axis=1)

    def _numbers(self, order: int, rows: list[list[bytes]]) -> NDArray[Any]:
        """Log-probabilities and back-off weights, float32 [2, M]. Raises ValueError."""
        if not {len(row) for row in rows} <= {order + 1, order + 2}:
            raise ValueError
        both = np.zeros((2, len(rows)))
        both[0] = np.fromiter((float(row[0]) for row in rows), np.float64, len(rows))
        both[1] = [float(row[-1]) if len(row) == order + 2 else 0.0 for row in rows]
        if not ((both[0] <= 0).all() and (np.abs(both[1]) <= _MOST).all()):
            raise ValueError
        return (np.maximum(both, -_MOST) * _LN_10).astype(np.float32)

    def _fault(self, order: int, first: int, rows: list[list[bytes]]) -> NoReturn:
        """Raise the error of the first of `rows` that is wrong; they are lines from number `first` on."""
        seen: set[bytes] = set()
        for number, row in enumerate(rows, first):
            where = f"on line {number} of {self._file}, got {quoted(b' '.join(row))}"
            if not order + 1 <= len(row) <= order + 2:
                raise BundleError(f"Expected LOGPROB, {order} word{'s'[: order > 1]} and perhaps a back-off {where}")
            try:
                log_prob, backoff = float(row[0]), float(row[-1]) if len(row) == order + 2 else 0.0
            except ValueError:
                raise BundleError(f"Expected numbers before and behind the words {where}") from None
            if not log_prob <= 0 or not abs(backoff) <= _MOST:
                raise BundleError(
                    f"Expected a log-probability of at most 0 and a back-off of at most {_MOST:,.0f} {where}"
                )
            if order == 1:
                if row[1] in seen or row[1] in self._ids:
                    raise BundleError(f"Expected each word once among the 1-grams {where}")
                seen.add(row[1])
                continue
            unknown = next((word for word in row[1 : order + 1] if word not in self._ids), None)
            if unknown is not None:
                raise BundleError(f"Expected words that are 1-grams too, not {quoted(unknown)}, {where}")
        raise AssertionError("unreachable")

    # ------------------------------------------------------------------------------------------------------------ lines

    @property
    def _number(self) -> int:
        """The number of the line that was taken last, from 1."""
        return self._before + self._at

    def _fail(self, wanted: str) -> NoReturn:
        line = self._lines[self._at - 1] if self._at else b""
        raise BundleError(f"Expected {wanted} on line {self._number} of {self._file}, got {quoted(line)}")

    def _next(self) -> bytes | None:
        """The next line that is not empty, without spaces around; None at the end."""
        while self._filled():
            self._at += 1
            if line := self._lines[self._at - 1].strip():
                return line
        return None

    def _take(self, most: int) -> tuple[int, list[bytes]]:
        """Up to `most` of the next lines, at least one, and the number of the first. Raises BundleError at the end."""
        if not self._filled():
            raise BundleError(f"{self._file} ends within its n-grams, on line {self._number}")
        first, begin = self._number + 1, self._at
        self._at = min(len(self._lines), begin + most)
        return first, self._lines[begin : self._at]

    def _filled(self) -> bool:
        while self._at == len(self._lines):
            more = next(self._blocks, None)
            if more is None:
                return False
            self._before += self._at
            self._lines, self._at = more, 0
        return True

    def _in_blocks(self, opened: IO[bytes]) -> Iterator[list[bytes]]:
        rest = b""
        while block := opened.read(_BLOCK_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            yield lines
            if len(rest) > _MOST_LINE_BYTES:
                raise BundleError(f"{self._file} has a line of more than {_MOST_LINE_BYTES:,} bytes")
        if rest:
            yield [rest]
