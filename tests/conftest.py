"""Tests that need a GPU are skipped where torch sees none."""

import pytest


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


def pytest_addoption(parser):
    parser.addoption(
        "--geometry",
        choices=["grid", "mesh", "points"],
        default="grid",
        help="what the fields of the runs in end_to_end/ sit on",
    )
