"""The first cause of a failure, in folders that real runs with that fault have left (times and paths shortened)."""

import os
import shutil
from collections import namedtuple

import pytest

from penstock.orchestrator.history.why import why

STARTED = (1.0, "started", {"pid": 7, "host": "here", "penstock": "0.2.0"})
KILLED = "Worker unexpectedly exits with a connection error code 2. End of file."
DISK = "can't write /runs/a/ledger.json: No space left on device; the last checkpoint is still valid"


def raised(place, line, error, stamp="2026-11-30T21:15:50.000Z"):
    return (
        f"{stamp} ERROR {place}: {line}\nTraceback (most recent call last):\n"
        f'  File "learner/trainer.py", line 153, in run\n    self._train_on(view)\n{error}\n'
    )


def starts(worker, second):
    return second, "worker started", {"worker": worker, "pid": 100 + int(second)}


def dies(worker, second, simulation, error=KILLED):
    keys = {"worker": worker, "pid": 90 + int(second), "error": f"in simulation {simulation}: {error}"}
    return second, "worker died", keys


def test_workers_that_die_again_and_again(made):
    """The death in the same life that the end repeats, and not one that was got over before."""
    cause = f"solver workers die again and again, the last one, solver-3, in simulation 17: {KILLED}; see solver-3.log"
    folder = made(
        "killed",
        cause=cause,
        events=[
            *[STARTED, starts("solver-0", 2), dies("solver-0", 3, 4, "it was silent for 60 s"), starts("solver-1", 4)],
            *[dies("solver-1", 10, 25), starts("solver-2", 12), dies("solver-2", 14, 16), starts("solver-3", 16)],
            *[dies("solver-3", 18, 17), (19, "failed", {"cause": cause})],
        ],
        logs={"driver": "", "learner": "", "solver-1": "2026-11-30T21:15:05.000Z INFO a: solving\n"},
    )
    text = why(folder)
    assert "killed failed at 2026-11-30T21:15:19.000Z. First, solver-1 (pid 100) died at 2026-11-30T21:15:10" in text
    assert (
        f"in simulation 25: {KILLED} From it followed: 2 more workers died, 2 more workers were started; then" in text
    )
    assert "then the run ended: solver workers die again and again, the last one, solver-3" in text
    assert "its log ends (logs/solver-1.log, line 1): INFO a: solving" in text and "\n" not in text


def test_a_simulation_that_was_given_up_leads_to_the_death_of_its_worker(made):
    cause = "all of the first 8 simulations failed; simulation 3: its worker died, 3 times; the workers' logs are in l"
    given_up = {"design": "training", "simulation": 3, "reason": "its worker died, 3 times", "failed": 1}
    folder = made(
        "given-up",
        cause=cause,
        events=[STARTED, dies("solver-0", 5, 3), (6, "simulation failed", given_up), (7, "failed", {"cause": cause})],
        logs={"solver-0": ""},
    )
    text = why(folder)
    assert "First, solver-0 (pid 95) died" in text and "From it followed: more simulations failed (at least 1" in text
    assert "its log, logs/solver-0.log, is empty: it was ended from outside" in text


def test_given_up_simulations_of_a_run_that_ended_are_told(made):
    given_up = {"design": "training", "simulation": 3, "reason": "its worker died, 3 times", "failed": 1}
    folder = made(
        "well",
        state="ended",
        cause="steps",
        events=[STARTED, dies("solver-0", 5, 3), (6, "simulation failed", given_up)],
    )
    text = why(folder)
    assert text.startswith(
        "well has not failed, it ended: training.stop_after.steps is reached. Before that solver-0 (pid 95) died at"
    )
    assert text.endswith("simulation 3 failed at 2026-11-30T21:15:06.000Z: its worker died, 3 times.")


def test_a_problem_that_raises(made):
    reason = "ArithmeticError: the mesh is inside out (failing.py, line 15)"
    cause = f"all of the first 16 simulations failed; simulation 0: {reason}; the workers' logs are in logs"
    keys = {"design": "validation", "reason": reason}
    text = raised("solvers.worker", "simulation 7 of design 'training' failed", "ValueError: of no matter")
    text += raised(
        "solvers.worker", "simulation 0 of design 'validation' failed", "ArithmeticError: the mesh is inside"
    )
    folder = made(
        "raising",
        cause=cause,
        events=[
            *[STARTED, (4, "simulation failed", keys | {"simulation": 0, "failed": 1})],
            *[(5, "simulation failed", keys | {"simulation": 9, "failed": 10}), (6, "failed", {"cause": cause})],
        ],
        logs={"learner": "", "solver-0": "", "solver-1": text},
    )
    text = why(folder)
    assert f"First, simulation 0 of the validation set failed at 2026-11-30T21:15:04.000Z: {reason}." in text
    assert "more simulations failed (at least 10 in all)" in text
    assert text.endswith("Its traceback: logs/solver-1.log, line 6.")


KILLED_PROGRAM = "./heat was ended by SIGKILL after step 3"
RESTARTED = {"design": "training", "simulation": 29, "reason": KILLED_PROGRAM, "restarts": 1}
IN_LOG = "2026-11-30T21:15:03.000Z {} solvers.worker: simulation {} of design 'training'{}: {}\n"


def test_a_program_that_was_started_again_is_named_in_a_run_that_went_on(made):
    events = [STARTED, (4, "program restarted", RESTARTED)]
    text = why(made("one", state="ended", cause="steps", events=events))
    assert text.endswith(
        f"Before that the program was restarted in simulation 29 at 2026-11-30T21:15:04.000Z: {KILLED_PROGRAM}."
    )
    events.append((6, "program restarted", RESTARTED | {"simulation": 70, "restarts": 10}))
    text = why(made("several", state="ended", cause="steps", events=events))
    assert f", as the first of at least 10 such events: {KILLED_PROGRAM}." in text


def test_a_program_that_gives_up_has_no_traceback(made):
    reason = "./heat: the linear solve diverges"
    cause = f"19 of the last 200 simulations failed; simulation 9: {reason}; the workers' logs are in logs"
    failed = {"design": "training", "simulation": 9, "reason": reason, "failed": 1}
    folder = made(
        "diverging",
        cause=cause,
        events=[STARTED, (4, "simulation failed", failed), (6, "failed", {"cause": cause})],
        logs={"solver-0": IN_LOG.format("ERROR", 9, " failed", reason)},
    )
    assert why(folder).endswith("It has no traceback; the log says it: logs/solver-0.log, line 1.")


def test_a_program_that_dies_again_and_again(made):
    """Its first fault was retried, and then its simulation failed."""
    cause = f"all of the first 8 simulations failed; simulation 29: {KILLED_PROGRAM}; the workers' logs are in logs"
    failed = {"design": "training", "simulation": 29, "reason": KILLED_PROGRAM, "failed": 1}
    again = f"{KILLED_PROGRAM}; the program is started again, and the simulation retried"
    log = IN_LOG.format("WARNING", 29, "", again) + IN_LOG.format("ERROR", 29, " failed", KILLED_PROGRAM)
    folder = made(
        "dying",
        cause=cause,
        events=[
            *[STARTED, (4, "program restarted", RESTARTED), (5, "simulation failed", failed)],
            (6, "failed", {"cause": cause}),
        ],
        logs={"solver-0": log},
    )
    text = why(folder)
    assert "First, the program was restarted in simulation 29 at 2026-11-30T21:15:04.000Z" in text
    assert "From it followed: more simulations failed" in text
    assert text.endswith("It has no traceback; the log says it: logs/solver-0.log, line 1.")


def test_a_learner_that_is_killed(made):
    died = "the learner's process died (ActorDiedError)"
    cause = f"{died} again before it had written another checkpoint; see learner.log, then go on with: penstock resume"
    folder = made(
        "learner",
        cause=cause,
        events=[
            *[STARTED, starts("solver-0", 2), (3, "learner died", {"error": died, "checkpoint": None})],
            *[
                (9, "learner restarted", {"pid": 3, "step": 0}),
                (12, "learner died", {"error": died, "checkpoint": None}),
            ],
            (13, "failed", {"cause": cause}),
        ],
        logs={"learner": "", "driver": raised("cli.app", "penstock train ends", f"LearnerDied: {died}")},
    )
    text = why(folder)
    assert (
        f"First, the learner died at 2026-11-30T21:15:03.000Z: {died}. From it followed: the learner died once" in text
    )
    assert "another learner took its place; then the run ended" in text and "logs/learner.log, is empty" in text


def test_the_log_is_that_of_the_rank_that_is_killed(made):
    died = "the learner's process died (memory ran out): rank 1 of 2"
    cause = f"{died} again before it had written another checkpoint; see learner-1.log, then go on with: x"
    events = [STARTED, (3, "learner died", {"error": died, "checkpoint": None}), (13, "failed", {"cause": cause})]
    stamp = "2026-11-30T21:15:02.000Z "
    logs = {"learner": f"{stamp}the other one ends\n", "learner-1": f"{stamp}step 5\n"}
    text = why(made("ranks", cause=cause, events=events, logs=logs))
    assert text.endswith("its log ends (logs/learner-1.log, line 1): step 5.")


@pytest.mark.parametrize(
    ("error", "cause", "has_warning"),
    [
        (
            "RuntimeError: shape '[7, -1]' is invalid for input of size 2048",
            "{} (mine.py, line 14); full traceback",
            False,
        ),
        ("penstock.errors.PenstockError: the loss is nan at step 312: lower training.learning_rate", "{}", True),
    ],
)
def test_a_bad_model_and_a_loss_that_diverges(made, error, cause, has_warning):
    cause = cause.format(error.removeprefix("penstock.errors.PenstockError: "))
    warning = (20, "warning", {"warning": "training diverges: its loss was 0.1 and is 5 since step 210"})
    log = raised("learner_actor", "the learner ends", error.replace("312", "90"), "2026-11-30T20:00:00.000Z")
    folder = made(
        "learner-raises",
        cause=cause,
        events=[STARTED, dies("solver-0", 3, 4), *([warning] if has_warning else []), (51, "failed", {"cause": cause})],
        logs={"driver": raised("cli.app", "penstock train ends", error), "learner": log + raised("a", "ends", error)},
    )
    text = why(folder)  # of this life, and not of the one before
    first = (
        "First, the learner warned at 2026-11-30T21:15:20.000Z: training diverges: " if has_warning else "First, the"
    )
    assert first in text and "the learner raised an error: " in text
    assert text.endswith("Its traceback: logs/learner.log, line 7.")


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_full_disk(made, is_recorded, monkeypatch):
    """Also one that took no last word, as of a driver without room."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 4096, 4096))
    kind = {"state": "failed", "cause": DISK} if is_recorded else {"state": "running"}
    driver = raised("cli.app", "penstock train ends", f"penstock.errors.DiskFault: {DISK}")
    text = why(made("full", **kind, events=[STARTED], logs={"driver": driver}))
    assert f"First, the disk refused what was written: {DISK}. Its disk is full: 4.1 kB are free." in text
    assert text.endswith("Its traceback: logs/driver.log, line 2.")


def test_a_driver_that_was_killed(made):
    log = raised("cli.app", "penstock monitor ends", "penstock.errors.PenstockError: the run's driver is gone")
    folder = made("dead", state="running", events=[STARTED, dies("solver-0", 5, 3)], logs={"driver": log})
    os.utime(folder.events, (0, 0))
    text = why(folder)
    assert text.startswith("dead is dead. Its driver (pid 4194305 on here) is gone without a word: it was killed")
    assert (
        "its last sign of life was at 1970-01-01T00:00:00.000Z" in text and "Before that solver-0 (pid 95) died" in text
    )
    assert "the run's driver is gone. Go on with: " in text and text.endswith(" resume runs/dead")


def test_what_a_job_printed_last_is_the_cause(made):
    folder = made("job", state="running", events=[STARTED], logs={"job": "starting Ray ...\npenstock: no room in d\n"})
    assert "job failed. The driver ended the run, and nothing else had gone wrong that explains it: no room" in why(
        folder
    )


def test_runs_that_wait_or_are_none(made):
    assert "waits to begin" in why(made("waits", state="submitted"))
    folder = made("none")
    (folder.path / "run.json").unlink()
    assert "holds no run" in why(folder)


def test_a_folder_of_an_earlier_version_and_damaged_lines(made):
    """Without `started` a life begins after the end of the one before."""
    events = [(1, "failed", {"cause": "x"}), (2, "learner died", {"error": "it died", "checkpoint": 4})]
    folder = made("old", cause="it died again", events=events)
    with folder.events.open("a") as file:
        file.write(
            '{"time": "now"}\n[1]\n{"event": "no time"}\n{"time": "2026-11-30T21:15:03+00:00"}\n'
            '{"time": "2026-11-30T21:15:03+00:00", "event": ["warning"]}\n{"ti'
        )
    assert "First, the learner died at 2026-11-30T21:15:02.000Z: it died." in why(folder)
