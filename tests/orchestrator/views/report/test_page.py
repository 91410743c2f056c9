"""Reports in a real browser."""

import shutil

import pytest

from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.views.report.page import SECTIONS
from penstock.orchestrator.views.report.writing import write
from tests.support.browser import chromium, drawn_share, opened, reached_by_keyboard

LARGEST_BYTES = 5_000_000


@pytest.fixture(scope="module")
def pages(folder, tmp_path_factory):
    """The report of the run, and its comparison with a copy of it."""
    place = tmp_path_factory.mktemp("pages")
    shutil.copytree(folder.path, place / "another")
    write([folder], place / "one.html")
    write([folder, RunFolder(place / "another")], place / "two.html")
    return {path.stem: path for path in place.glob("*.html")}


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
@pytest.mark.parametrize(("name", "num_figures"), [("one", 16), ("two", 6)])
def test_every_picture_is_drawn_and_nothing_sticks_out(browser, pages, name, num_figures, width, scheme):
    with opened(browser, pages[name].as_uri(), width=width, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        pictures = page.locator("figure [role=img]")
        assert pictures.count() == num_figures
        for number in range(num_figures):
            assert drawn_share(pictures.nth(number)) > 0.01
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
        assert (background, ink) == {
            "light": ("rgb(255, 255, 255)", "rgb(28, 32, 36)"),
            "dark": ("rgb(20, 23, 26)", "rgb(228, 231, 234)"),
        }[scheme]
        smallest = page.evaluate(
            "Math.min(...[...document.querySelectorAll('figure svg text')].map(e => e.getBoundingClientRect().height))"
        )
        assert smallest > 8  # px, a letter's line


def test_the_page_is_reached_by_keyboard_and_its_tables_have_headers(browser, pages):
    with opened(browser, pages["one"].as_uri(), width=400, scheme="light") as page:
        assert page.locator("table").count() >= 6
        assert page.locator("table:not(:has(thead th[scope=col]))").count() == 0
        assert page.locator("tbody tr:not(:has(th[scope=row]))").count() == 0
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(ids) == len(set(ids)) and set(SECTIONS) <= set(ids)
        reached = reached_by_keyboard(page)
        assert {title for title, _ in SECTIONS.values()} <= set(reached)
        assert any(each.startswith("configuration, ") for each in reached)
        assert "Pictures of the best, median and worst case" in reached


def test_a_report_is_small_and_shows_a_user_s_text_as_text(pages):
    assert all(path.stat().st_size < LARGEST_BYTES for path in pages.values())
    text = pages["one"].read_text()
    assert "<b>" not in text and "darcy: &lt;b&gt;." in text
    assert "of another version" not in text
