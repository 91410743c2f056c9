"""What all tests share: skips without a GPU, the geometry of the runs, signals as in a terminal."""

import signal

import pytest

from penstock.solvers import mpi


def pytest_configure(config):
    # A shell has what it starts in the background ignore Ctrl-C, and `nohup` a hang-up; all that tests start would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # As workers do before PETSc starts: its own handler would end the tests at a program that has closed its pipe.
    mpi.make_ready()


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
