"""A report as Markdown."""

from __future__ import annotations

from moulin.evaluate.pages.blocks import (
    Alignment,
    Block,
    Code,
    Fact,
    Facts,
    Paragraph,
    Plots,
    Table,
)
from moulin.evaluate.pages.document import document
from moulin.evaluate.report import Report
from moulin.evaluate.wer import alignment_view


def to_markdown(report: Report) -> str:
    """The page without its plots, whose figures are in the tables."""
    whole = document(report)
    parts = [f"# {whole.title}", whole.subtitle]
    for section in whole.sections:
        if section.title:
            parts.append(f"## {section.title}")
        parts += [text for block in section.blocks if (text := _block(block))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Paragraph(text, warning):
            return f"**{_escaped(text)}**" if warning else text
        case Facts(facts):
            return "\n".join(map(_fact, facts))
        case Table(header, rows):
            cells = [header, ["---"] * len(header), *([_escaped(cell) for cell in row] for row in rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in cells)
        case Alignment(title, pairs):
            return f"{title}\n\n```\n{alignment_view(pairs)}\n```"
        case Code(text):
            return f"```\n{text}\n```"
        case Plots():
            return ""


def _fact(fact: Fact) -> str:
    value = fact.value if fact.doubtful else f"**{fact.value}**"
    return f"* {value} {fact.name}{f' ({fact.note})' if fact.note else ''}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
