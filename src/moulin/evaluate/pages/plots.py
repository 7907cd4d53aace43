"""Plots as SVG text, for a page that needs nothing else: lines, bars and strips.

Colours are CSS classes (`s0` to `s5` of the palette, `other` for what matters less), so that a page decides what they
are in light and in dark. Every mark has a title that browsers show under the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

NUM_COLOURS = 6

_WIDTH, _HEIGHT = 620, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 16, 12, 44
_ROW = 30
_CHARACTER = 6.6  # of the labels, in 12 px


@dataclass(frozen=True, slots=True)
class Series:
    """A line: (x, y) of its points. `colour` is its place in the palette."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    dashed: bool = False
    dots: bool = True
    labels: Sequence[str] = ()
    """A text above each dot."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of bars or dots: its label, its (name, value, CSS class) parts, and the text at its end."""

    label: str
    parts: Sequence[tuple[str, float, str]]
    text: str = ""


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_y: bool = False,
    y_range: tuple[float, float] | None = None,
    limit: tuple[float, str] | None = None,
) -> str:
    """Lines over a common x axis from their least to their greatest x; `limit` is a level with its name."""
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points if y > 0 or not log_y]
    if not xs or not ys:
        return ""
    low, high = y_range or (min(ys), max(ys))
    if limit:
        high = max(high, limit[0])
    x_scale, x_ticks = _linear(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT, nice=False)
    y_scale, y_ticks = (_logarithmic if log_y else _linear)(
        low if log_y else min(0.0, low), high, _HEIGHT - _BOTTOM, _TOP
    )
    parts = []
    for tick in y_ticks:
        y = y_scale(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, _number(tick), "end"))
    parts += [_text(x_scale(tick), _HEIGHT - _BOTTOM + 18, _number(tick), "middle") for tick in x_ticks]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x_label, "middle", "axis"))
    parts.append(
        f'<text class="axis" transform="translate(13 {(_TOP + _HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )
    if limit:
        y = y_scale(limit[0])
        parts.append(f'<line class="limit" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT + 6, y - 5, limit[1], "start"))
    for line in series:
        labels = line.labels or [""] * len(line.points)
        shown = [(*point, label) for point, label in zip(line.points, labels, strict=True) if point[1] > 0 or not log_y]
        points = [(x_scale(x), y_scale(y), x, y) for x, y, _ in shown]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _, _ in points)
        dashed = " dashed" if line.dashed else ""
        parts.append(f'<polyline class="line s{line.colour}{dashed}" points="{path}">{_title(line.name)}</polyline>')
        if line.dots:
            parts += [
                f'<circle class="dot s{line.colour}" cx="{px:.1f}" cy="{py:.1f}" r="4">'
                f"{_title(f'{line.name}: {_number(x)}, {_number(y)}')}</circle>"
                for px, py, x, y in points
            ]
        for (px, py, _, _), (_, _, label) in zip(points, shown, strict=True):
            if label:
                anchor = "end" if px > _WIDTH - _RIGHT - 24 else "start"
                parts.append(_text(px + (-7 if anchor == "end" else 7), max(py - 7, _TOP + 8), label, anchor))
    return _svg(_WIDTH, _HEIGHT, parts, f"{y_label} over {x_label}")


def bar_chart(rows: Sequence[Row], *, x_label: str, value: Callable[[float], str] | None = None) -> str:
    """A horizontal bar a row, of parts behind each other."""
    value = value or _number
    left = min(260.0, 14 + _CHARACTER * max(len(row.label) for row in rows))
    right = 12 + _CHARACTER * max(len(row.text) for row in rows)
    longest = max(sum(max(0.0, size) for _, size, _ in row.parts) for row in rows) or 1.0
    scale, ticks = _linear(0, longest, left, _WIDTH - right)
    height = _TOP + _ROW * len(rows) + _BOTTOM
    parts = _vertical_grid(scale, ticks, height, x_label, left, right, value)
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number
        parts.append(_text(left - 8, y + _ROW / 2 + 4, row.label, "end"))
        at = 0.0
        for name, size, css in row.parts:
            size = max(0.0, size)
            x, width = scale(at), scale(at + size) - scale(at)
            if width > 0:
                gap = 1.5 if width > 4 else 0
                parts.append(
                    f'<rect class="bar {css}" x="{x:.1f}" y="{y + 6}" width="{max(0.5, width - gap):.1f}" '
                    f'height="{_ROW - 12}" rx="2">{_title(f"{row.label}, {name}: {value(size)}")}</rect>'
                )
            at += size
        parts.append(_text(scale(at) + 8, y + _ROW / 2 + 4, row.text, "start"))
    return _svg(_WIDTH, height, parts, x_label)


def grouped_bars(groups: Sequence[tuple[str, Sequence[Row]]], *, x_label: str) -> str:
    """A chart with a thin bar for each row of each group, whose name is at the left."""
    thin, gap = 9, 9
    left = min(260.0, 14 + _CHARACTER * max(len(name) for name, _ in groups))
    longest = max((part[1] for _, rows in groups for row in rows for part in row.parts), default=1.0) or 1.0
    scale, ticks = _linear(0, longest, left, _WIDTH - 24)
    height = _TOP + sum(thin * len(rows) + gap for _, rows in groups) + _BOTTOM
    parts = _vertical_grid(scale, ticks, height, x_label, left, 24, _number)
    y = float(_TOP)
    for name, rows in groups:
        parts.append(_text(left - 8, y + thin * len(rows) / 2 + 4, name, "end"))
        for row in rows:
            for part, size, css in row.parts:
                parts.append(
                    f'<rect class="bar {css}" x="{scale(0):.1f}" y="{y:.1f}" '
                    f'width="{max(1.0, scale(size) - scale(0)):.1f}" height="{thin - 1.5}" rx="1.5">'
                    f"{_title(f'{name}, {part}: {_number(size)}')}</rect>"
                )
            y += thin
        y += gap
    return _svg(_WIDTH, height, parts, x_label)


def strip_chart(rows: Sequence[Row], *, x_label: str) -> str:
    """A dot for each part of a row, and a tick at their median."""
    left = min(260.0, 14 + _CHARACTER * max(len(row.label) for row in rows))
    right = 12 + _CHARACTER * max(len(row.text) for row in rows)
    longest = max(size for row in rows for _, size, _ in row.parts)
    scale, ticks = _linear(0, longest, left, _WIDTH - right)
    height = _TOP + _ROW * len(rows) + _BOTTOM
    parts = _vertical_grid(scale, ticks, height, x_label, left, right, _number)
    for number, row in enumerate(rows):
        middle = _TOP + _ROW * number + _ROW / 2
        parts.append(_text(left - 8, middle + 4, row.label, "end"))
        sizes = sorted(size for _, size, _ in row.parts)
        median = scale((sizes[(len(sizes) - 1) // 2] + sizes[len(sizes) // 2]) / 2)
        css = row.parts[0][2]
        parts.append(
            f'<rect class="track {css}" x="{scale(0):.1f}" y="{middle - 2}" '
            f'width="{median - scale(0):.1f}" height="4"/>'
        )
        parts += [
            f'<circle class="dot faint {part_css}" cx="{scale(size):.1f}" cy="{middle}" r="5">'
            f"{_title(f'{row.label}, {name}: {_number(size)}')}</circle>"
            for name, size, part_css in row.parts
        ]
        parts.append(f'<line class="median" x1="{median:.1f}" x2="{median:.1f}" y1="{middle - 9}" y2="{middle + 9}"/>')
        parts.append(_text(scale(sizes[-1]) + 12, middle + 4, row.text, "start"))
    return _svg(_WIDTH, height, parts, x_label)


def legend(names: Sequence[tuple[str, str]]) -> str:
    """A line of HTML for names with their CSS classes."""
    keys = (f'<span class="key"><i class="{css}"></i>{escape(name)}</span>' for name, css in names)
    return f'<p class="legend">{"".join(keys)}</p>'


_Scale = Callable[[float], float]


def _linear(low: float, high: float, start: float, end: float, *, nice: bool = True) -> tuple[_Scale, list[float]]:
    """A scale from [low, high] to pixels, and ticks at round numbers; `nice` goes up to the last tick."""
    if high <= low:
        low, high = (low - 1, low + 1) if not nice else (min(0.0, low), max(1.0, low))
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.ceil(high / step - 1e-9) if nice else math.floor(high / step + 1e-9)
    ticks = [number * step for number in range(first, last + 1)]
    if nice:
        high = ticks[-1]
    return lambda value: start + (value - low) / (high - low) * (end - start), ticks


def _logarithmic(low: float, high: float, start: float, end: float) -> tuple[_Scale, list[float]]:
    """A logarithmic scale from [low, high] to pixels, and ticks at 1, 2 and 5."""
    every = [factor * 10.0**power for power in range(-3, 9) for factor in (1, 2, 5)]
    below = max((tick for tick in every if tick <= low), default=every[0])
    above = min((tick for tick in every if tick >= high and tick > below), default=every[-1])
    ticks = [tick for tick in every if below <= tick <= above]
    span = math.log(above / below)
    return lambda value: start + math.log(max(value, below) / below) / span * (end - start), ticks


def _vertical_grid(
    scale: _Scale,
    ticks: Sequence[float],
    height: float,
    x_label: str,
    left: float,
    right: float,
    value: Callable[[float], str],
) -> list[str]:
    parts = []
    for tick in ticks:
        x = scale(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM:.0f}"/>')
        parts.append(_text(x, height - _BOTTOM + 18, value(tick), "middle"))
    parts.append(_text((left + _WIDTH - right) / 2, height - 6, x_label, "middle", "axis"))
    return parts


def _text(x: float, y: float, text: str, anchor: str, css: str = "label") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _title(text: str) -> str:
    """A title that browsers show under the pointer."""
    return f"<title>{escape(text)}</title>"


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">' + "".join(parts) + "</svg>"
    )


def _number(value: float) -> str:
    """`value` with as few digits as possible."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
