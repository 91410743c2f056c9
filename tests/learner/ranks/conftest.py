"""The server that ranks are forked from serves the tests in this folder, and ends with them."""

from multiprocessing import forkserver, resource_tracker
from pathlib import Path


def pytest_runtest_teardown(item, nextitem):
    """Other tests count the processes that theirs leave."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        forkserver._forkserver._stop()
        resource_tracker._resource_tracker._stop()
