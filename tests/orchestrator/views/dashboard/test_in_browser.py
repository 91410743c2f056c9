"""The dashboard in a real browser, which follows a run without loading its page again."""

import json
import shutil

import pytest

from penstock.orchestrator.views.dashboard import boards
from penstock.orchestrator.views.dashboard.trial import EARLY
from penstock.orchestrator.views.report.page import SECTIONS
from tests.orchestrator.views.dashboard.conftest import NAME, append
from tests.support.browser import chromium, drawn_share, opened, reached_by_keyboard
from tests.support.waiting import wait_until

NUM_FIGURES = 5  # of a run without workers, bias, solves and rollouts


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(autouse=True)
def without_rests(monkeypatch):
    monkeypatch.setattr(boards, "SHARE_AFTERWARDS", 1e9)
    monkeypatch.setattr(boards, "SHORTEST_S", 0.0)


def when(page, condition, argument=None):
    """Wait for a condition in the page, which allows playwright's own way of it no more than any other foreign code."""
    wait_until(lambda: page.evaluate(condition, argument), every_s=0.02)


def when_shown(page, text):
    """Wait until the page shows a text, in its status line or elsewhere, and asks for no more."""
    when(page, "text => document.body.textContent.includes(text) && !busy", text)


def without_requests(page):
    """Hide the page, so that it asks for nothing any more."""
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    when(page, "() => typeof busy == 'boolean' && !busy")


def look_again(page):
    """Leave the page and come back, whereupon it asks at once."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_a_page_follows_its_run(browser, runs, dashboard):
    with opened(browser, dashboard.address(f"/run/{NAME}/"), width=1280, scheme="light") as page:
        assert dashboard.token not in page.url
        when(page, "num => document.querySelectorAll('figure').length == num", NUM_FIGURES)
        when_shown(page, EARLY)
        assert page.locator("#live").text_content() == "This page is live; the run's state: ended."
        page.evaluate("window.isTheSame = true")
        page.locator("#configuration summary").click()
        page.locator("#overview .wide").focus()
        top = page.evaluate("scrollY")
        append(runs / NAME, 7)
        look_again(page)
        when_shown(page, "56 unique")
        assert page.evaluate("isTheSame")
        assert page.locator("#configuration details").get_attribute("open") is not None
        assert page.evaluate("document.activeElement.closest('section').id") == "overview"
        assert abs(page.evaluate("scrollY") - top) < 50
        without_requests(page)
        for width, scheme in ((1280, "light"), (400, "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
            for figure in page.locator("figure [role=img]").all():
                assert drawn_share(figure) > 0.01
        assert page.locator("table:not(:has(thead th[scope=col]))").count() == 0
        page.locator("header a").focus()
        reached = reached_by_keyboard(page)
        assert {title for title, _ in SECTIONS.values()} <= set(reached)
        assert any(each.startswith("configuration, ") for each in reached)


def test_the_list_leads_to_a_run_and_back(browser, runs, dashboard):
    (runs / NAME / "run.json").write_text(json.dumps({"state": "submitted"}))
    with opened(browser, dashboard.address(), width=400, scheme="dark") as page:
        page.locator("#runs a").wait_for()
        (runs / NAME / "run.json").write_text(json.dumps({"state": "stopped"}))
        look_again(page)
        when_shown(page, "stopped")
        page.locator("#runs a").focus()
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/run/{NAME}/")
        when_shown(page, "with a checkpoint")
        page.locator("header a").click()
        page.locator("#runs a").wait_for()
        without_requests(page)


def test_what_is_gone_is_said(browser, runs, dashboard):
    page = browser.new_page()
    try:
        page.goto(dashboard.address(f"/run/{NAME}/"))
        when_shown(page, "state: ended")
        shutil.rmtree(runs / NAME)
        look_again(page)
        when_shown(page, "There is no such run")
        page.context.set_offline(True)
        look_again(page)
        when_shown(page, "The dashboard does not answer")
    finally:
        page.close()
