"""What is checked of every state of the page: in light, in dark and as wide as a phone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, ViewportSize, expect

VIEWS: dict[str, tuple[ViewportSize, Any]] = {
    "light": ({"width": 1100, "height": 850}, "light"),
    "dark": ({"width": 1100, "height": 850}, "dark"),
    "phone": ({"width": 375, "height": 780}, "light"),
}
PICTURES = "MOULIN_PICTURES"
"""The variable with the folder for pictures, to look at; by default they go with the test's folder."""

_AXE = Axe()
_OVERFLOW = """() => {
    const wide = document.documentElement.clientWidth;
    return [...document.querySelectorAll("body *")].filter((one) => {
        if (one.closest("#waveform, .unseen, .skip, .earlier-open") || !one.checkVisibility()) return false;
        const { left, right } = one.getBoundingClientRect();
        return right > wide + 1 || left < -1;
    }).map((one) => one.outerHTML.slice(0, 200));
}"""

_UNDER_THE_FOOT = """() => {
    const undo = document.querySelector("#undo");
    const foot = document.querySelector(".deck").getBoundingClientRect().top;
    return undo.checkVisibility() && undo.getBoundingClientRect().bottom > foot;
}"""


def wait_for_frames(page: Page) -> None:
    """Two frames: what a change or an event asks to be drawn, as the canvas, is drawn with the first."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))")


def look(page: Page, name: str, folder: Path, *visible: str) -> None:
    """The state `name`: axe finds nothing, nothing hangs over, and the elements `visible` are there."""
    pictures = Path(os.environ.get(PICTURES, folder))
    pictures.mkdir(parents=True, exist_ok=True)
    for view, (size, scheme) in VIEWS.items():
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size(size)
        for selector in visible:
            expect(page.locator(selector).first).to_be_visible()
        wait_for_frames(page)
        page.screenshot(path=pictures / f"{name}-{view}.png")
        assert page.evaluate(_OVERFLOW) == [], f"{name}, {view}"
        assert not page.evaluate(_UNDER_THE_FOOT), f"{name}, {view}"
        found = _AXE.run(page).response["violations"]
        if found:
            pytest.fail(f"{name}, {view}: " + "; ".join(_sentence(violation) for violation in found))


def _sentence(violation: dict[str, Any]) -> str:
    places = [" ".join(node["target"]) + " " + node.get("failureSummary", "")[:160] for node in violation["nodes"]]
    return f"{violation['id']} ({violation['help']}): {places[:4]}"
