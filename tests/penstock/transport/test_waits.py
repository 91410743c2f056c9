"""Waits of workers, by a clock that is set."""

from penstock.messages import BLOCKED, UNLEASED
from penstock.transport.waits import Waits


def test_a_wait_counts_while_it_goes_on_and_for_what_the_worker_says_once_it_has_ended():
    waits = Waits()
    waits.begin("a", BLOCKED, 1.0)
    waits.begin("b", BLOCKED, 2.0)
    assert waits.seconds(3.0) == {BLOCKED: 3.0, UNLEASED: 0.0}
    waits.end("a", 4.0, 2.5)
    waits.begin("a", UNLEASED, 4.0)
    assert waits.seconds(5.0) == {BLOCKED: 2.5 + 3.0, UNLEASED: 1.0}
    waits.end("b", 6.0)  # it died, and says nothing
    waits.end("a", 6.0, 1.5)
    waits.end("a", 7.0)  # it did not wait
    assert waits.seconds(9.0) == {BLOCKED: 6.5, UNLEASED: 1.5}


def test_the_sums_never_fall():
    """Of a wait whose end comes late the learner has counted too much, which later waits make up for."""
    waits = Waits()
    waits.begin("a", BLOCKED, 0.0)
    assert waits.seconds(5.0)[BLOCKED] == 5.0
    waits.end("a", 5.0, 4.0)
    waits.begin("a", BLOCKED, 6.0)
    assert waits.seconds(6.5)[BLOCKED] == 5.0 and waits.seconds(8.0)[BLOCKED] == 6.0
