"""The server that ranks are forked from serves the tests in this folder, and ends with them."""

from multiprocessing import forkserver, resource_tracker

import pytest


@pytest.fixture(scope="package", autouse=True)
def no_server_after_these_tests():
    yield
    forkserver._forkserver._stop()
    resource_tracker._resource_tracker._stop()
