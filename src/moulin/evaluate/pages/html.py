"""A report as one page that needs nothing else: no script, no font, no picture from elsewhere; light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from moulin import __version__
from moulin.evaluate.pages.blocks import (
    Alignment,
    Block,
    Code,
    Document,
    Fact,
    Facts,
    Paragraph,
    Plots,
    Section,
    Table,
)
from moulin.evaluate.pages.document import document
from moulin.evaluate.report import Report
from moulin.evaluate.wer import Pair

_STYLE = Path(__file__).with_name("page.css")


def to_html(report: Report) -> str:
    """The page of a report of any of the benchmarks."""
    return page(document(report))


def page(whole: Document) -> str:
    """A document as a page."""
    sections = "\n".join(map(_section, whole.sections))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(whole.title)}: {escape(whole.subtitle)}</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<header><h1>{escape(whole.title)}</h1><p>{escape(whole.subtitle)}</p></header>
<main>
{sections}
</main>
<footer>moulin {__version__}</footer>
</body>
</html>
"""


def _section(section: Section) -> str:
    title = f"<h2>{escape(section.title)}</h2>" if section.title else ""
    return f"<section>{title}{''.join(map(_block, section.blocks))}</section>"


def _block(block: Block) -> str:
    match block:
        case Paragraph(text, warning):
            css = ' class="warning" role="note"' if warning else ""
            return f"<p{css}>{escape(text)}</p>"
        case Facts(facts):
            return f'<dl class="facts">{"".join(map(_card, facts))}</dl>'
        case Table(header, rows):
            return _table(header, rows)
        case Plots(plots):
            figures = (f"<figure><figcaption>{escape(plot.title)}</figcaption>{plot.html}</figure>" for plot in plots)
            return f'<div class="plots">{"".join(figures)}</div>'
        case Alignment(title, pairs):
            return _alignment(title, pairs)
        case Code(text):
            return f"<pre>{escape(text)}</pre>"


def _card(fact: Fact) -> str:
    css = " class=doubtful" if fact.doubtful else ""
    value = f"{escape(fact.value)}<small>{escape(fact.note)}</small>"
    return f"<div{css}><dt>{escape(fact.name)}</dt><dd>{value}</dd></div>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    named = any(header)
    head = f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in header)}</tr></thead>" if named else ""
    body = "".join(f"<tr>{''.join(f'<td{_kind(cell)}>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table{"" if named else " class=pairs"}>{head}<tbody>{body}</tbody></table></div>'


def _kind(cell: str) -> str:
    return ' class="number"' if cell[:1].isdigit() or cell == "-" else ""


def _alignment(title: str, pairs: Sequence[Pair]) -> str:
    """A column for each word; errors are marked by more than their colour."""
    columns = []
    for said, heard in pairs:
        kind = "" if said == heard else "ins" if said is None else "del" if heard is None else "sub"
        css = f' class="{kind}"' if kind else ""
        columns.append(f"<span{css}><b>{escape(said or '∅')}</b><i>{escape(heard or '∅')}</i></span>")
    return f'<div class="alignment"><h3>{escape(title)}</h3><div class="words">{"".join(columns)}</div></div>'
