"""What chooses simulations: counting, and one that goes by what it hears; over the death of a run, too."""

import json

from penstock.orchestrator.ledger.designs import Design, InOrder
from penstock.orchestrator.ledger.ledger import Ledger
from penstock.status import Ended


class Screened(Design):
    """Of `num_candidates` ids in turn those of large parameters, once the error is known; no longer any that failed.

    The parameter of id i is i mod 10, and the larger one is the harder one.
    """

    num_candidates = 20

    def __init__(self, name="training"):
        super().__init__(name)
        self.num_looked_at, self.least, self.failed = 0, 0, []

    def next(self, count):
        first, self.num_looked_at = self.num_looked_at, self.num_looked_at + self.num_candidates
        harder = [i for i in range(first, self.num_looked_at) if i % 10 >= self.least and i % 10 not in self.failed]
        self.num_looked_at = first + self.num_candidates if len(harder) <= count else harder[count]
        return harder[:count]

    def observe(self, ended, errors):
        self.least = 0 if errors is None else 5
        self.failed = sorted({i % 10 for i in ended.failed})

    def state(self):
        return {"num_looked_at": self.num_looked_at}

    def load_state(self, state):
        self.num_looked_at = state["num_looked_at"]


def intervals(ids):
    return [[i, i + 1] for i in sorted(ids)]


def saved(ledger):
    return json.loads(json.dumps(ledger.to_json()))


def test_a_design_chooses_by_what_it_hears():
    ledger = Ledger(Screened())
    assert ledger.lease(0, 6).simulations == (0, 1, 2, 3, 4, 5)
    ledger.settle(Ended([[0, 6]]), {"relative_l2": {"mean": 0.5}})
    assert ledger.lease(1, 6).simulations == (6, 7, 8, 9, 15, 16)
    ledger.settle(Ended([[0, 8]], {8: "diverged"}), {"relative_l2": {"mean": 0.3}})
    assert ledger.lease(2, 4).simulations == (17, 19, 25, 26)
    assert ledger.lease(3, 1).design == "training"


def test_a_design_goes_on_after_a_resume_and_what_was_lost_comes_first():
    ledger = Ledger(Screened(), 100)
    ledger.settle(Ended(), {"relative_l2": {"mean": 0.5}})
    for number in range(3):
        ledger.lease(number, 5)
    ledger.settle(Ended(intervals([5, 6, 7])), {"relative_l2": {"mean": 0.5}})
    before = saved(ledger)
    assert before["leased"] == {"0": [8, 9], "1": [15, 16, 17, 18, 19], "2": [25, 26, 27, 28, 29]}

    resumed = Ledger(Screened(), 100, Ended(intervals([5, 6])), before)  # the checkpoint is older than the ledger
    assert resumed.num_left == 98
    resumed.settle(Ended(intervals([5, 6])), {"relative_l2": {"mean": 0.5}})
    again = [resumed.lease(number, 13).simulations for number in range(2)]
    assert again == [(7, 8, 9, *range(15, 20), *range(25, 30)), (*range(35, 40), *range(45, 50), 55, 56, 57)]


def test_a_ledger_that_was_written_before_the_checkpoint_gives_nothing_out_twice():
    """The file is written every 5 s: the run died with the checkpoint newer than it."""
    for design, window in ((InOrder("training"), 4), (Screened(), 4)):
        ledger, given = Ledger(design, 60), []
        given += ledger.lease(0, window).simulations
        before = saved(ledger)
        given += ledger.lease(1, window).simulations
        given += ledger.lease(2, window).simulations
        delivered = given[:2] + given[5:7] + given[9:10]
        resumed = Ledger(type(design)("training"), 60, Ended(intervals(delivered)), before)
        later, number = [], 0
        while (lease := resumed.lease(number, window)) is not None:
            later += lease.simulations
            number += 1
        assert len(set(later)) == len(later) == 60 - len(delivered) and not set(later) & set(delivered)
        assert later[:2] == given[2:4]
        resumed.settle(Ended(intervals(delivered + later)))
        assert resumed.is_complete()


def test_a_folder_of_an_earlier_version_goes_on_by_counting():
    """Its ledger.json has no design, or there is none."""
    before = {"delivered": [[0, 4], [6, 7]], "failed": {"5": "why"}, "leased": {"3": [4, 8]}, "returned": []}
    ledger = Ledger(InOrder("training"), 12, Ended([[0, 4]], {5: "why"}), before)
    assert ledger.lease(0, 9).simulations == (4, 6, 8)
    assert ledger.lease(1, 9).simulations == (7, 9, 10, 11)
    assert ledger.lease(2, 9) is None and ledger.num_left == 0


def test_a_limit_that_was_lowered_on_resume_holds():
    ledger = Ledger(InOrder("training"))
    for number in range(5):
        ledger.lease(number, 10)
    resumed = Ledger(InOrder("training"), 20, Ended([[0, 12]]), saved(ledger))
    assert resumed.num_left == 8
    assert resumed.lease(0, 6).simulations == tuple(range(12, 18))
    assert resumed.lease(1, 6).simulations == (18, 19)
    assert resumed.lease(2, 6) is None and not resumed.is_complete()
    assert resumed.end_lease(1) == {} and resumed.lease(3, 6).simulations == (20, 21)
    resumed.settle(Ended([[0, 18], [20, 22]]))
    assert resumed.is_complete()


class Repeating(Design):
    """Has three ids, which it gives again and again, and after them none."""

    def __init__(self):
        super().__init__("training")
        self.answers = [[3, 1], [1, 7], [], [3], []]

    def next(self, count):
        return self.answers.pop(0)

    def state(self):
        return {}

    def load_state(self, state):
        """There is nothing to go on from."""


def test_what_a_design_gives_twice_is_leased_once_and_it_may_have_none_for_now():
    ledger = Ledger(Repeating())
    assert ledger.lease(0, 4).simulations == (3, 1, 7)
    assert ledger.lease(1, 4) is None


def test_counting_gives_every_id_in_order():
    design = InOrder("validation")
    assert [*design.next(3), *design.next(2)] == [0, 1, 2, 3, 4]
    other = InOrder("validation")
    other.load_state(json.loads(json.dumps(design.state())))
    assert list(other.next(2)) == [5, 6]
    ledger = Ledger(other)
    assert ledger.lease(0, 2).simulations == (7, 8) and ledger.lease(1, 1).design == "validation"
