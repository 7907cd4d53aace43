"""A report as blocks of text, tables and plots, in reading order: the same for the page and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moulin.evaluate.wer import Pair


@dataclass(frozen=True, slots=True)
class Paragraph:
    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Fact:
    """A figure that is shown as a big number."""

    value: str
    name: str
    note: str = ""
    doubtful: bool = False
    """Shown grey: other processes disturbed what it is of."""


@dataclass(frozen=True, slots=True)
class Facts:
    facts: Sequence[Fact]


@dataclass(frozen=True, slots=True)
class Table:
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Plot:
    """HTML with an SVG; the tables have the same figures."""

    title: str
    html: str


@dataclass(frozen=True, slots=True)
class Plots:
    plots: Sequence[Plot]


@dataclass(frozen=True, slots=True)
class Alignment:
    title: str
    pairs: Sequence[Pair]


@dataclass(frozen=True, slots=True)
class Code:
    text: str


Block = Paragraph | Facts | Table | Plots | Alignment | Code


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    title: str
    subtitle: str
    sections: Sequence[Section]
