"""Which side limits, by records computed by hand of runs whose speeds are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from penstock.orchestrator.resources.advice import Aims, Standing, workers_for
from penstock.orchestrator.resources.bottleneck import BottleneckWatch, judged, share
from penstock.record import SIDES
from penstock.status import (
    Account,
    BufferStatus,
    Ended,
    IntakeTimes,
    LearnerStatus,
    News,
    TrainingStatus,
    TrainingTimes,
)

NO_AIMS = Aims()
ZERO = dict.fromkeys(Standing.__dataclass_fields__, 0.0)
# One second each of four workers. A worker at work delivers 10 samples/s; a learner that never waits trains 160.
SECOND = ZERO | {"seconds": 1.0, "worker_seconds": 4.0, "training": 1.0, "taking": 0.01}
SOLVERS = SECOND | {  # each sample once: 40 of 160
    "unique": 40,
    "simulations": 40,
    "trained": 40,
    "steps": 5,
    "waiting": 0.75,
    "starved": 0.99,
    "solving": 4.0,
}
LEARNER = SECOND | {  # 160 samples/s, each once, by workers that could deliver 320
    "unique": 160,
    "simulations": 160,
    "trained": 160,
    "steps": 20,
    "full": 0.99,
    "solving": 2.0,
    "blocked": 0.5,
    "unleased": 1.5,  # their leases are short
}
LIMITER = SECOND | {  # reuse 8: 20 of 40 samples/s
    "unique": 20,
    "simulations": 20,
    "trained": 160,
    "steps": 20,
    "held": 0.99,
    "solving": 2.0,
    "blocked": 2.0,
}
BUFFER = SECOND | {  # 80 samples/s of workers that could deliver 107, to a learner that could train 100
    "unique": 80,
    "simulations": 80,
    "trained": 80,
    "steps": 10,
    "waiting": 0.2,
    "full": 0.4,
    "starved": 0.59,
    "solving": 3.0,
    "blocked": 1.0,
}
NETWORK = SECOND | {  # 20 samples/s of workers that could deliver 80
    "unique": 20,
    "simulations": 20,
    "trained": 160,
    "steps": 20,
    "starved": 0.99,
    "solving": 1.0,
    "blocked": 3.0,
}
INTAKE = NETWORK | {"unique": 200, "simulations": 200, "starved": 0.0, "taking": 1.0}
NONE = SECOND | {  # 40 and 160 samples/s
    "unique": 40,
    "simulations": 40,
    "trained": 160,
    "steps": 20,
    "starved": 0.99,
    "solving": 4.0,
}


def watched(seconds, aims=NO_AIMS, watch=None):
    """What is found after each of some seconds, from the first on."""
    watch = watch or BottleneckWatch(aims)
    total = Standing(**ZERO)
    found = [watch.look(total)]
    for second in seconds:
        total = total + Standing(**second)
        found.append(watch.look(total))
    return found, watch


@pytest.mark.parametrize(
    ("second", "aims", "side", "sentence", "rates"),
    [
        (
            SOLVERS,
            Aims(),
            "solvers",
            "solvers limit: 12 workers more would feed this learner, which waits 75 % of its time",
            (160, 40, 4000),
        ),
        (
            SOLVERS | {"trained": 320, "waiting": 0.5},  # at reuse 8 the learner could train 640
            Aims(batches_per_simulation=2.0),
            "solvers",
            "solvers limit: 4 workers more would feed this learner at reuse 8, which waits 50 % of its time; or "
            "buffer.batches_per_simulation 4 in place of 2 (reuse 16) suits the speed of both",
            (640, 40, 4000),
        ),
        (
            LEARNER,
            Aims(),
            "learner",
            "the learner limits: the solvers wait 50 % of their time; a step in 50 % of its time would take all that "
            "they deliver, and 2 of 4 workers would do for this one",
            (160, 320, 16000),
        ),
        (
            LIMITER,
            Aims(batches_per_simulation=2.0),
            "rate limiter",
            "the rate limiter holds the solvers to reuse 8, which wait 50 % of their time: "
            "buffer.batches_per_simulation 1 in place of 2 (reuse 4) suits the speed of both",
            (160, 40, 2000),
        ),
        (
            BUFFER,
            Aims(),
            "buffer",
            "the buffer limits: learner (20 % of its time) and solvers (25 %) wait in turn; a larger buffer.capacity "
            "would even that out",
            (100, 80 / 3 * 4, 8000),
        ),
        (
            NETWORK,
            Aims(),
            "transport",
            "transport limits: it brings 20 of the 80 samples/s that the solvers could deliver; the learner has room, "
            "and the network between them is what is slow",
            (160, 80, 20),
        ),
        (
            INTAKE,
            Aims(),
            "transport",
            "transport limits: it brings 200 of the 800 samples/s that the solvers could deliver; the learner's "
            "process is at its limit with taking them in, and needs more cores or ranks",
            (160, 800, 200),
        ),
        (
            NETWORK
            | {
                "blocked": 0.5,
                "unleased": 2.5,
            },  # 20 simulations a second, in leases of which two are given each second
            Aims(),
            "transport",
            "transport limits: it brings 20 of the 80 samples/s that the solvers could deliver; the workers wait for "
            "leases: raise solver.window",
            (160, 80, 20),
        ),
        (
            NONE,
            Aims(),
            "none",
            "neither side waits: 40 unique and 160 trained samples/s, reuse 4; 8 workers would halve the reuse",
            (160, 40, 4000),
        ),
        (
            NONE,
            Aims(reuse=8.0),
            "none",
            "neither side waits: 40 unique and 160 trained samples/s, reuse 4; 2 workers would bring it to 8",
            (160, 40, 4000),
        ),
    ],
)
def test_the_side_that_limits_and_what_would_help(second, aims, side, sentence, rates):
    found, watch = watched([second] * 5, aims)
    assert found[:5] == [None] * 5  # five blocks, for the spread over them
    for bottleneck, reserve in ((found[-1], ""), (watch.overall(), "100 % of the time ")):
        assert bottleneck.side == side and bottleneck.certainty > 0.99
        assert bottleneck.sentence == reserve + sentence
        each = (bottleneck.learner_per_s, bottleneck.solvers_per_s, bottleneck.transport_per_s)
        assert each == pytest.approx(rates)
        assert side in SIDES


def test_a_share_has_the_error_of_a_ratio_and_the_probability_of_students_t():
    parts, wholes = np.array([0.2, 0.5, 0.0, 0.3]), np.array([1.0, 1.1, 0.9, 1.0])
    found = share(parts, wholes)
    p = parts.sum() / wholes.sum()
    # of equal wholes it would be the error of a mean
    residuals = parts - p * wholes
    error = np.sqrt((residuals**2).sum() / (4 * 3)) / wholes.mean()
    assert found == pytest.approx((0.25, error, 3))
    assert found.above(0.1) == pytest.approx(stats.t.cdf((0.25 - 0.1) / error, df=3))
    equal = share([0.1, 0.4, 0.1], [1.0, 1.0, 1.0])
    assert equal.error == pytest.approx(stats.sem([0.1, 0.4, 0.1]))
    assert share([0.0, 0.0, 1.0], [0.0, 0.0, 2.0]) is None  # one block has no spread


def test_certainty_is_right_as_often_as_it_says():
    """Of waits that are as often above the bound as below it, a certain answer is wrong at most as often as it may."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        true = 0.1 + rng.choice([-0.05, 0.05])
        waits = rng.gamma(true / 0.1, 0.1, size=10)  # of this mean, and spread about as far
        blocks = [Standing(**NONE | {"waiting": wait}) for wait in waits]
        bottleneck = judged(blocks, Aims())
        is_right = (bottleneck.side == "solvers") == (true > 0.1)
        wrong += bottleneck.certainty >= 0.95 and not is_right
    assert wrong <= 400 * 0.05 + 3 * math.sqrt(400 * 0.05 * 0.95)


def test_what_is_not_certain_is_said_so_until_it_is():
    """A learner that waits in every tenth second: on average at the bound above which a side waits."""
    seconds = [SOLVERS | {"waiting": 1.0 if second % 10 == 4 else 0.0} for second in range(80)]
    found, _ = watched(seconds)
    assert found[-1].certainty < 0.95
    assert found[-1].sentence.startswith(f"not certain ({100 * found[-1].certainty:.0f} %): ")
    # Waits of a third of the time, in the same rhythm: the longer windows are certain.
    seconds = [SOLVERS | {"waiting": 1.0 if second % 10 in (4, 5, 6) else 0.0} for second in range(80)]
    found, _ = watched(seconds)
    assert found[-1].side == "solvers" and found[-1].certainty >= 0.95


def test_few_samples_say_nothing_and_slow_simulations_are_judged_by_the_whole_run():
    found, watch = watched([ZERO | {"seconds": 1.0, "worker_seconds": 4.0, "training": 1.0, "waiting": 1.0}] * 30)
    assert found[-1] is None and watch.overall() is None
    # One simulation in 50 s, each of four samples: a window of 80 s has one or two of them.
    pause = SECOND | {"waiting": 1.0, "starved": 0.99}
    sample = pause | {"unique": 4, "simulations": 1, "trained": 4, "steps": 1, "waiting": 0.9, "solving": 200.0}
    found, _ = watched([sample if second % 50 == 49 else pause for second in range(400)])
    assert found[100] is None
    assert found[-1].side == "solvers" and found[-1].solvers_per_s == pytest.approx(4 / 50)


def test_validation_checkpoints_and_compiling_are_no_ones_wait():
    """The solvers wait meanwhile, because nothing is taken."""
    aside = SECOND | {"training": 0.1, "aside": 0.9, "full": 0.99, "taking": 0.0, "blocked": 4.0}
    found, watch = watched([aside] * 4 + [NONE] * 6 + [aside] * 20 + [NONE] * 6)
    assert found[4] is None
    for bottleneck in (found[-1], found[20], watch.overall()):
        assert bottleneck.side == "none" and bottleneck.certainty > 0.95
        assert (bottleneck.learner_per_s, bottleneck.solvers_per_s) == pytest.approx((160, 40))


def test_a_change_is_followed_and_the_whole_run_is_known_however_long_it_was():
    found, watch = watched([SOLVERS] * 300 + [LEARNER] * 1200)
    assert found[300].side == "solvers" and found[310].side == "learner"
    assert all(bottleneck.side in ("solvers", "learner") for bottleneck in found[5:] if bottleneck.certainty >= 0.95)
    overall = watch.overall()
    assert overall.side == "learner" and overall.certainty == pytest.approx(0.8, abs=0.01)
    assert overall.sentence.startswith("80 % of the time the learner limits: ")
    assert overall.solvers_per_s == pytest.approx(320, rel=0.02)
    assert len(watch._of_run) <= 64
    # another number of workers begins the windows again
    found, _ = watched([NONE] * 20 + [NONE | {"worker_seconds": 8.0, "solving": 8.0, "unique": 80}] * 5)
    assert found[20].solvers_per_s == pytest.approx(40) and found[-1].solvers_per_s == pytest.approx(80)


def test_a_buffer_full_of_unseen_samples_is_seen_although_hardly_any_chunk_is_taken():
    """A worker with 150 samples/s fills the buffer in 5 s; then a learner with 10 samples/s makes room.

    A chunk of 150 is taken every 15 s, and only then is the work known that went into it.
    """
    one = SECOND | {"worker_seconds": 1.0, "trained": 10, "steps": 1}
    chunk = {"unique": 150, "simulations": 15, "solving": 1.0}
    fills = one | chunk | {"starved": 0.98}
    full = one | {"unique": 10, "full": 0.99, "blocked": 1.0}
    course = [fills] * 5 + [full | (chunk if second % 15 == 0 else {}) | {"unique": 10} for second in range(15)]
    found, watch = watched(course)
    assert found[-1].side == "learner" and found[-1].certainty >= 0.95
    assert found[-1].sentence.startswith("the learner limits: the solvers wait 71 % of their time; ")
    overall = watch.overall()
    assert overall.side == "learner" and " of the time the learner limits: the solvers wait " in overall.sentence


def test_nothing_is_said_of_a_time_without_workers():
    """They may all be starting while the last samples of those before them arrive."""
    found, watch = watched([LEARNER | {"worker_seconds": 0.0}] * 20)
    assert set(found) == {None} and watch.overall() is None


def test_another_learner_that_goes_on_from_a_checkpoint_begins_again():
    _, watch = watched([SOLVERS] * 10)
    before, *found = watched([LEARNER] * 5, watch=watch)[0]  # its sums begin at 0
    assert before is not None and found[-1].side == "learner"
    _, watch = watched([NONE] * 3)
    watch.pause()
    assert watched([NONE], watch=watch)[0][-1] is None
    watch.pause()
    assert watched([NONE], watch=watch)[0][-1] is not None  # the jumps back to 0 were not counted, nor cleared anything


def test_several_learner_ranks_are_one_side():
    """Two ranks with two workers each, whose status is joined: waits and intake as means, the rest as sums."""
    status = LearnerStatus(
        training=TrainingStatus(
            **{name: None for name in ("loss", "warning", "validation")},
            **{"state": "training", "step": 50, "progress": 0.5, "learning_rate": 1e-3, "seconds": 9.0},
            trained=800,
            wait_seconds=5.0,
            times=TrainingTimes(training=10.0, aside=0.25, compiling=0.5),
        ),
        account=Account(
            training=Ended([[0, 190]], {190: "torn", 191: "torn"}),
            validation=Ended([[0, 4]]),
            unique=400,
            dropped=0,
            retried=0,
            solver_blocked_seconds=1.0,
            solver_seconds=40.0,
            solver_unleased_seconds=0.5,
            intake=IntakeTimes(starved=9.0, taking=0.5, full=0.25, held=0.125, paused=0.125),
        ),
        buffer=BufferStatus(samples=1, capacity=10, bias=None),
        news=News(),
    )
    standing = Standing.of(status, seconds=10.0, worker_seconds=40.0)
    assert (standing.simulations, standing.aside, standing.solving, standing.idle) == (192, 0.875, 40.0, 1.5)
    tenth = {name: getattr(standing, name) / 10 for name in ZERO}
    bottleneck = watched([tenth] * 5)[0][-1]
    assert bottleneck.side == "solvers"
    assert bottleneck.learner_per_s == pytest.approx(160)  # of both ranks: 800 in 5 s
    assert bottleneck.solvers_per_s == pytest.approx(40)
    assert bottleneck.transport_per_s == pytest.approx(800)  # two threads, each with 200 samples in 0.5 s
    assert bottleneck.sentence.startswith("solvers limit: 4 workers more ")


def test_the_number_of_workers_for_a_reuse():
    assert workers_for(4, 8.0, 4.0) == 8.0
    # what is asked for in the sentence brings the reuse that it says
    more = workers_for(4, 16.0, 8.0)
    faster = replace(Standing(**NONE), unique=40 * more / 4, worker_seconds=more, solving=more)
    assert faster.trained / faster.unique == 2.0
