"""A real browser without a window, Debian's Chromium, and what is looked at in a page."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic"),
]


@contextmanager
def chromium() -> Iterator:
    """The browser; skips the test where there is none, and fails it in CI."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if sync_playwright is None or not CHROMIUM.exists():
        reason = "no browser: install Debian's chromium and fonts-dejavu-core, and playwright for Python"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser, address: str, *, width: int, scheme: str) -> Iterator:
    """A page in a window of some width, in a colour scheme; complaints of the browser fail the test.

    A page from a file may ask for nothing from a network.
    """
    page, complaints = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme), []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else 0)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    if address.startswith("file:"):
        page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else 0)
    page.goto(address)
    try:
        yield page
    finally:
        page.close()
    assert not complaints


def drawn_share(locator) -> float:
    """The share of the pixels of an element that differ from those of its corner."""
    pixels = np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB")).astype(int)
    return float((np.abs(pixels - pixels[0, 0]).max(axis=-1) > 40).mean())


def reached_by_keyboard(page, most: int = 200) -> list[str]:
    """What the tab key leads to, in turn: the text or the label of each element, until it leads back."""
    found = []
    for _ in range(most):
        page.keyboard.press("Tab")
        at = page.evaluate(
            "(e => e === document.body ? null : e.getAttribute('aria-label') || e.textContent)(document.activeElement)"
        )
        if at is None or (found and at == found[0]):
            return found
        found.append(at)
    raise AssertionError(f"more than {most} stops")
