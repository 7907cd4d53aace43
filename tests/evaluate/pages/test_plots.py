"""Plots of known figures: where the marks are."""

from __future__ import annotations

import re

import pytest

from moulin.evaluate.pages.plots import Row, Series, bar_chart, grouped_bars, line_chart, strip_chart


def test_points_of_a_line_are_where_their_values_are() -> None:
    chart = line_chart([Series("a", [(0, 0), (5, 50), (10, 100)], 0)], x_label="x", y_label="y")
    points = [tuple(map(float, it)) for it in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', chart)]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.2)
    assert y0 > y2
    assert ">100<" in chart


def test_a_logarithmic_axis_has_equal_factors_at_equal_distances() -> None:
    chart = line_chart([Series("a", [(1, 10), (2, 100), (3, 1000)], 0)], x_label="x", y_label="y", log_y=True)
    ys = [float(y) for y in re.findall(r'cx="[\d.]+" cy="([\d.]+)"', chart)]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)


def test_a_limit_beyond_all_values_is_still_shown() -> None:
    chart = line_chart([Series("a", [(1, 10), (2, 20)], 0)], x_label="x", y_label="y", limit=(500, "limit"), log_y=True)
    (y,) = re.findall(r'class="limit" x1="\d+" x2="\d+" y1="([\d.]+)"', chart)
    assert 0 < float(y) < 320


@pytest.mark.parametrize("points", [[], [(1, 0)]])
def test_nothing_to_show(points: list[tuple[float, float]]) -> None:
    assert line_chart([Series("a", points, 0)], x_label="x", y_label="y", log_y=True) == ""


def test_one_point_alone() -> None:
    assert "circle" in line_chart([Series("a", [(48, 20)], 0)], x_label="x", y_label="y")


def test_labels_of_dots() -> None:
    line = Series("a", [(10, 20), (40, 30), (50, 90)], 0, labels=["1", "8", "64 <b>"])
    chart = line_chart([line], x_label="x", y_label="y")
    assert [label for label in re.findall(r'class="label"[^>]*>([^<]*)</text>', chart) if label == "8"] == ["8"]
    assert "64 &lt;b&gt;" in chart
    (x,) = re.findall(r'<text class="label" x="([\d.]+)" y="[\d.]+" text-anchor="end">64', chart)
    assert float(x) < 620  # the last one is not cut off at the right


def test_bars_are_as_long_as_their_values() -> None:
    chart = bar_chart([Row("a", [("x", 1, "s0"), ("y", 2, "s1")]), Row("b", [("x", 3, "s0")])], x_label="x")
    widths = [float(width) for width in re.findall(r'class="bar [^"]+".*?width="([\d.]+)"', chart)]
    assert widths[1] == pytest.approx(2 * widths[0], rel=0.03)
    assert widths[2] == pytest.approx(widths[0] + widths[1], rel=0.03)


def test_names_are_escaped_everywhere() -> None:
    row = Row("<b>", [("<i>", 1.0, "s0")], "<u>")
    for chart in (
        bar_chart([row], x_label="<x>"),
        strip_chart([row], x_label="<x>"),
        grouped_bars([("<g>", [row])], x_label="<x>"),
        line_chart([Series("<s>", [(1, 1), (2, 2)], 0)], x_label="<x>", y_label="<y>", limit=(1, "<l>")),
    ):
        assert not re.search(r"<[biusxyl]>", chart)
