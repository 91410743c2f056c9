"""The bench of what watching costs: arithmetic on made costs, and who watches."""

import os
from dataclasses import replace
from threading import Thread

import pytest

from benchmarks.views.page import Pair, costs_table, shares_table
from benchmarks.views.scrape import WORKERS, scrape
from benchmarks.views.viewers import COLUMNS, OpenPage, Terminal
from benchmarks.views.watching import Cost
from penstock.orchestrator.views.dashboard.server import Dashboard
from penstock.orchestrator.views.report.page import SECTIONS
from tests.orchestrator.views.dashboard.conftest import NAME, make_run
from tests.support.waiting import wait_until

QUIET = Cost(
    steps=100,
    wall_seconds=50.0,
    driver=2.0,
    learner=40.0,
    solvers=5.0,
    monitor=0.0,
    dashboard=0.0,
    worst_cases=0.0,
    run=60.0,
)
WATCHED = replace(
    QUIET, steps=50, wall_seconds=100.0, driver=5.0, learner=21.0, monitor=0.5, dashboard=1.25, worst_cases=0.25
)


def test_differences_are_by_the_second_and_by_the_step():
    pair = Pair(QUIET, WATCHED)
    assert pair.driver == pytest.approx(5.0 - 100 * 2 / 50) and pair.learner == pytest.approx(21.0 - 50 * 40 / 100)
    assert pair.views == pytest.approx(1.0 + 0.5 + 1.25 + 0.25)
    shares = shares_table([pair]).splitlines()[6]
    assert f"{100 * 3 / (100 * os.cpu_count()):.2f}" in shares and "5.00" in shares
    cells = [cell.strip() for cell in costs_table([pair]).splitlines()[2].split("|")]
    assert cells[1:-1] == ["driver, s", "2.00", "5.00", "1.00"]


def test_a_scrape_has_the_series_of_every_worker():
    assert scrape().num_series > 4 * WORKERS


def test_a_page_asks_for_each_section_once_while_nothing_changes(tmp_path):
    make_run(tmp_path)
    with Dashboard(tmp_path) as dashboard:
        thread = Thread(target=dashboard.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        page = OpenPage(dashboard.address(f"/run/{NAME}/"))
        num_at_first = len(page._known)  # what was made before it was loaded

        def is_whole() -> bool:
            page.once()
            return num_at_first + page.num_sections >= len(SECTIONS)

        wait_until(is_whole)
        wait_until(lambda: page.once() > 1.0)
        assert num_at_first + page.num_sections == len(SECTIONS)
        dashboard.shutdown()
        thread.join()


def test_a_terminal_has_its_width():
    terminal = Terminal()
    assert os.get_terminal_size(terminal.end).columns == COLUMNS
    os.write(terminal.end, b"four")
    wait_until(lambda: terminal.num_bytes == 4)
    terminal.close()
