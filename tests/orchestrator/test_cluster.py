"""What a run does around Ray, without Ray."""

import os
import signal

import pytest

from penstock.orchestrator.cluster import noted_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_whatever_its_handler_does(number):
    before = signal.signal(number, lambda *_: None)  # as one whose exception a callback of Python's forgot
    try:
        with noted_signals() as noted:
            assert noted() is None
            os.kill(os.getpid(), number)
            assert noted() == number and noted() is None
    finally:
        signal.signal(number, before)
    assert signal.set_wakeup_fd(-1) == -1
