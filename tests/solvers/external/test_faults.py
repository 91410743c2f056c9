"""Programs that crash, hang, write garbage, send no numbers, fork, or outlive their worker."""

import gc
import mmap
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from penstock.messages import Lease, Restart
from penstock.solvers.external.process import Misfit, ProgramFault
from penstock.solvers.external.protocol import SharedMemory
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.problem import RETRIED, SolveError
from penstock.solvers.problems.external import External
from penstock.solvers.worker import SolverWorker
from tests.support.waiting import wait_until

WRITE = "import mmap, struct; mapped = mmap.mmap(memory, 0); "
ALL = WRITE + "mapped[64:128] = struct.pack('8d', *range(8))\n"
SEND = "say(f'sample {number} 0 0.0')"
DONE = "say(f'done {number}')"

FAULTS = {
    "crash": ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV before its first sample"),
    "exit": ("sys.exit(3)", "ended with exit code 3 before its first sample, and was not asked to"),
    "hang": ("time.sleep(60)", r"was silent for 1 s \(its timeout_s\) before its first sample: it hangs"),
    "garbage": (
        "say('it = 1, residual = 0.5')",
        "wrote 'it = 1, residual = 0.5' before its first sample, which is no line",
    ),
    "bytes": (
        "os.write(writing, bytes(range(128, 256)) * 600); time.sleep(60)",
        "bytes without the end of a line before its first sample, beginning with",
    ),
    "no simulation": ("say('done')", "wrote 'done' before its first sample, which is no line"),
    "another simulation": ("say('done 7')", "wrote 'done 7', a line of another simulation: .* has the number 2"),
    "no number": (
        "say(f'sample {number} zero 0.0')",
        r"wrote 'sample \d zero 0.0' before its first sample, which is no line",
    ),
    "no time": ("say(f'sample {number} 0 nan')", "the time of step 0 is not finite: nan"),
    "nothing written": (SEND, "sample of step 0 lacks 'u', which was not written"),
    "NaN": (
        WRITE + "mapped[64:128] = struct.pack('8d', 1, 1, 1, float('nan'), 1, 1, 1, 1); " + SEND,
        r"step 0 has 'u' not finite at 1 places, first nan at \[3\], counted from 0",
    ),
    "all NaN": (
        WRITE + "mapped[64:128] = struct.pack('8d', *8 * [float('nan')]); " + SEND,
        r"step 0 has 'u' not finite at 8 places, first nan at \[0\]",
    ),
    "half written": (
        WRITE + "mapped[64:96] = struct.pack('4d', *range(4)); " + SEND,
        r"step 0 has 'u' not written at 4 places, first at \[4\], counted from 0",
    ),
    "infinite": (WRITE + "mapped[64:128] = struct.pack('8d', *8 * [1e999]); " + SEND, "not finite at 8"),
    "twice": (ALL + SEND + "; next(lines)\n" + ALL + SEND, "sent step 0 twice: a wrong counter, or a fork"),
    "counts": (ALL + "say(f'sample {number} 0 0.0 points=3')", "counts points, and no length in the spec is so named"),
    "daemon": (
        "if os.fork(): time.sleep(0.2); os._exit(0)\n"
        "os.setsid(); print(os.getpid(), file=starts, flush=True); time.sleep(60)",
        "forked and ended with exit code 0 before its first sample, leaving 1 process",
    ),
}


def test_a_number_that_is_nan_is_told_from_one_that_was_not_written():
    memory = SharedMemory({}, {"v": ()})
    memory.clear()
    with pytest.raises(ValueError, match="lacks 'v', which was not written"):
        memory.read({})
    mmap.mmap(memory.descriptor, 8)[:] = struct.pack("d", float("nan"))
    with pytest.raises(ValueError, match="has 'v' not finite: nan"):
        memory.read({})


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_tried_twice(tried, fault, caplog):
    """What it starts is gone afterwards; the first time is in the log."""
    body, message = FAULTS[fault]
    program = tried(body=body, timeout_s=1.0 if fault == "hang" else 20.0)
    with pytest.raises(ProgramFault, match=message):
        list(program.problem.simulate({"k": 1.5}, None))
    assert len(set(program.pids())) == (4 if fault == "daemon" else 2)
    assert program.are_gone()
    assert RETRIED in caplog.text


def test_a_program_that_closes_its_pipe_is_named(tried, monkeypatch):
    monkeypatch.setattr("penstock.solvers.external.process.END_S", 0.2)
    program = tried(body="os.close(writing); time.sleep(60)")
    with pytest.raises(ProgramFault, match="closed its pipe before its first sample and went on"):
        list(program.problem.simulate({"k": 1.5}, None))
    assert program.are_gone()


def test_an_older_protocol_is_named(tried):
    program = tried("import os\nos.write(int(os.environ['PENSTOCK_DESCRIPTORS'].split()[1]), b'hello\\n')\n")
    with pytest.raises(ProgramFault, match="wrote 'hello', and its first line must be 'penstock 1'"):
        list(program.problem.simulate({"k": 1.5}, None))


def test_a_program_that_is_missing_is_named(tried):
    program = tried(body="pass")
    program.problem.command = "./no_such_program --fast"
    with pytest.raises(ProgramFault, match="no_such_program --fast can't be started: No such file or directory"):
        list(program.problem.simulate({"k": 1.5}, None))


def test_what_a_program_prints_is_no_output_of_ours_and_harms_nothing(tried, capfd):
    """It goes to standard error, which is the log of a worker: standard output may be read by a script."""
    body = ALL + "os.write(1, b'residual 1e-9\\n'); os.write(2, b'sample 9 9\\n'); " + SEND + "; next(lines); " + DONE
    program = tried(body=body)
    (sample,) = program.problem.simulate({"k": 1.5}, None)
    assert sample.outputs["u"].tolist() == list(range(8))
    assert capfd.readouterr() == ("", "residual 1e-9\nsample 9 9\n")


def test_a_simulation_is_completed_by_the_second_try(tried):
    """The program dies in its third step, once; no step comes twice."""
    body = f"""for step in range(5):
    {ALL}    say(f'sample {{number}} {{step}} {{0.1 * step}}')
    next(lines)
    if step == 2 and not os.path.exists('died'):
        open('died', 'w').close()
        os.abort()
"""
    program = tried(body=body + DONE, num_steps=5)
    for _ in range(2):
        samples = list(program.problem.simulate({"k": 1.5}, None))
        assert [sample.step for sample in samples] == list(range(5))
    assert len(program.pids()) == 2


def test_a_simulation_that_the_program_gives_up_fails_alone(tried):
    """Nothing is tried again, and the program goes on."""
    program = tried(body="say(f'failed {number} Newton does not converge')")
    for _ in range(2):
        with pytest.raises(SolveError, match=r"program\.py: Newton does not converge"):
            list(program.problem.simulate({"k": 1.5}, None))
    assert len(program.pids()) == 1


def test_what_is_done_after_it_was_given_up_is_not_the_next_simulation(tried):
    """Such a program would give the sample of one draw for the input of another."""
    body = f"""k, = struct.unpack('d', mapped[:8])
if k > 1.8: say(f'failed {{number}} too large')
else:
    mapped[64:128] = struct.pack('8d', *8 * [k]); {SEND}; next(lines)
{DONE}"""
    program = tried(body=WRITE + body)
    with pytest.raises(SolveError, match="too large"):
        list(program.problem.simulate({"k": 1.9}, None))
    for k in (1.2, 1.4):
        (sample,) = program.problem.simulate({"k": k}, None)
        assert sample.outputs["u"].tolist() == 8 * [k]
    assert len(program.pids()) == 2


def test_what_is_sent_after_it_was_given_up_is_not_the_next_simulations(tried, caplog):
    """The program of the fault: it gives up in step 1, and sends steps 1 and 2."""
    body = """k, = struct.unpack('d', mapped[:8])
for step in range(3):
    if k > 1.8 and step == 1: say(f'failed {number} too large')
    mapped[64:128] = struct.pack('8d', *8 * [k]); say(f'sample {number} {step} 0.0'); next(lines)
"""
    program = tried(body=WRITE + body + DONE)
    with pytest.raises(SolveError, match="too large"):
        list(program.problem.simulate({"k": 1.9}, None))
    samples = list(program.problem.simulate({"k": 1.2}, None))
    assert [sample.step for sample in samples] == [0, 1, 2]
    assert all(sample.outputs["u"].tolist() == 8 * [1.2] for sample in samples)
    assert "program.py wrote 'sample 1 1 0.0', a line of another simulation" in caplog.text


RETRIES = {
    "value": ("mapped[64 + 56:128] = struct.pack('d', 7 + 1e-4 * again)", r"step 0 has another 'u' than the sample"),
    "time": ("time_s += again", "step 0 has another time than the sample that was taken before the fault"),
    "step": ("steps -= again", "it does not send step 1, which was taken before the fault"),
}


@pytest.mark.parametrize("what", RETRIES)
def test_a_retry_that_does_not_repeat_what_was_taken_fails(tried, what):
    change, message = RETRIES[what]
    body = f"""again, steps, time_s = os.path.exists('died'), 2, 1.0
{ALL}{change}
written = mapped[64:128]
for step in range(steps):
    mapped[64:128] = written
    say(f'sample {{number}} {{step}} {{time_s}}'); next(lines)
if not again:
    open('died', 'w').close()
    os.abort()
"""
    program = tried(body=body + DONE)
    with pytest.raises(ProgramFault, match=message):
        list(program.problem.simulate({"k": 1.5}, None))
    assert program.are_gone()


def test_a_retry_that_repeats_what_was_taken_to_rounding_is_fine(tried):
    """As on several ranks, whose sums depend on their order; 4000 values are compared at some places."""
    body = f"""again = os.path.exists('died')
{WRITE}mapped[64:64 + 32000] = struct.pack('4000d', *(i * (1 + 1e-9 * again) for i in range(4000)))
{SEND}; next(lines)
if not again:
    open('died', 'w').close()
    os.abort()
"""
    program = tried(body=body + DONE, geometries={"line": {"kind": "grid", "shape": [4000]}})
    assert len(list(program.problem.simulate({"k": 1.5}, None))) == 1
    assert len(program.pids()) == 2


def test_the_memory_of_a_problem_is_gone_with_it():
    problem = External(command="./program", spec={"outputs": {"u": {}}})
    place = Path(f"/proc/self/fd/{problem.program.memory.descriptor}")
    assert "penstock" in os.readlink(place)
    del problem
    gc.collect()
    assert not place.exists()


def test_a_parameter_may_be_given_back_as_an_output(tried):
    program = tried(
        body=WRITE + "mapped[64:72] = struct.pack('d', 2.5); " + SEND + "; next(lines); " + DONE,
        inputs={},
        outputs={"k": {}},
    )
    (sample,) = program.problem.simulate({"k": 1.5}, None)
    assert sample.outputs["k"] == 2.5


def test_heartbeats_keep_a_slow_program_alive(tried):
    body = "for _ in range(12): say('beat'); time.sleep(0.12)\n" + ALL + SEND + "; next(lines); " + DONE
    program = tried(body=body, timeout_s=1.0)
    assert len(list(program.problem.simulate({"k": 1.5}, None))) == 1
    assert len(program.pids()) == 1


def test_a_simulation_that_is_left_half_way_does_not_disturb_the_next(tried):
    body = "for step in range(3):\n    " + ALL + "    say(f'sample {number} {step} 0.0'); next(lines)\n" + DONE
    program = tried(body=body)
    simulation = program.problem.simulate({"k": 1.5}, None)
    next(simulation)
    simulation.close()
    assert [sample.step for sample in program.problem.simulate({"k": 1.5}, None)] == [0, 1, 2]


def test_a_worker_counts_the_simulation_as_failed_and_says_why_in_one_line(tried, caplog):
    program = tried(body="os.kill(os.getpid(), signal.SIGFPE)")
    worker = SolverWorker(program.problem, {"training": LinearSolver(Direct(), rtol=1e-8)}, seed=0, sort=False)
    caplog.set_level("WARNING", SolverWorker.__module__)  # commands in this process silence its tracebacks
    (chunk,) = worker.stream(Lease(number=0, simulations=(0,)))
    assert chunk.finished == ()
    reason = f"{program.problem.command} was ended by SIGFPE before its first sample"
    assert chunk.failed == {0: reason}
    assert [record.getMessage() for record in caplog.records] == [
        f"simulation 0 of design 'training': {reason}; {RETRIED}",
        f"simulation 0 of design 'training' failed: {reason}",
    ]


def test_a_program_that_is_killed_in_between_is_counted_and_told(tried):
    """By the number of its simulation and the step before; the others know nothing of it."""
    body = f"""for step in range(2):
    {ALL}    say(f'sample {{number}} {{step}} 0.0'); next(lines)
    if step == 0 and number == '2' and not os.path.exists('died'):
        open('died', 'w').close()
        os.kill(os.getpid(), signal.SIGKILL)
"""
    program = tried(body=body + DONE, num_steps=2)
    worker = SolverWorker(program.problem, {"training": LinearSolver(Direct(), rtol=1e-8)}, seed=0, sort=False)
    (chunk,) = worker.stream(Lease(number=0, simulations=(5, 6, 7), design="validation"))
    assert chunk.finished == (5, 6, 7) and chunk.retried == 1
    reason = f"{program.problem.command} was ended by SIGKILL after step 0"
    assert chunk.restarts == (Restart(design="validation", simulation=6, reason=reason),)


MISFITS = {
    "more steps": (3, 0, r"sent step 2, and num_steps in the spec is 2: steps count from 0"),
    "fewer steps": (1, 0, r"sent 1 samples in the simulation, and num_steps in the spec is 2: send as many, or mend"),
    "from 1": (2, 1, r"program\.py sent step 1 first: steps count from 0"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_steps_that_are_not_those_of_the_spec_fail_at_once(tried, what, caplog):
    num, first, message = MISFITS[what]
    body = f"for step in range({num}):\n    {ALL}    say(f'sample {{number}} {{step + {first}}} 0.0'); next(lines)\n"
    program = tried(body=body + DONE, num_steps=2)
    with pytest.raises(Misfit, match=message):
        list(program.problem.simulate({"k": 1.5}, None))
    assert len(program.pids()) == 1 and RETRIED not in caplog.text


def test_a_fault_that_the_program_names_is_retried_only_where_an_earlier_simulation_may_be_the_cause(tried, caplog):
    """A program that was just started would say the same again."""
    body = f"""if os.path.exists('says'): say('fault the spec has no array v; known: u')
{ALL}{SEND}; next(lines); {DONE}
"""
    program = tried(body=body)
    list(program.problem.simulate({"k": 1.5}, None))
    Path("says").touch()
    with pytest.raises(Misfit, match=r"program\.py: the spec has no array v; known: u"):
        list(program.problem.simulate({"k": 1.5}, None))
    assert len(program.pids()) == 2 and caplog.text.count(RETRIED) == 1
    with pytest.raises(Misfit):
        list(program.problem.simulate({"k": 1.5}, None))
    assert len(program.pids()) == 3 and caplog.text.count(RETRIED) == 1


def test_nothing_outlives_a_worker_that_is_killed(tried, tmp_path):
    """Nor a program that hangs, nor a daemon of it that has left its process group."""
    body = "if not os.fork(): os.setsid(); print(os.getpid(), file=starts, flush=True)\ntime.sleep(60)"
    program = tried(body=body)
    code = (
        "import sys; from penstock.solvers.problems.external import External\n"
        "problem = External(command=sys.argv[1], spec={'parameters': {}, 'outputs': {'u': {}}})\n"
        "list(problem.simulate({}, None))"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, program.problem.command], cwd=tmp_path)
    wait_until(lambda: len(program.pids()) == 2)
    guard = parent_of(program.pids()[0])
    worker.kill()
    worker.wait()
    wait_until(lambda: program.are_gone() and not Path(f"/proc/{guard}").exists())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("half", ["inner", "outer"])
def test_a_guard_that_is_killed_leaves_nothing_and_is_named(tried, half, number):
    """Nor a daemon. A worker of Ray that ends in order kills the outer half."""
    daemon = "if not os.fork(): os.setsid(); print(os.getpid(), file=starts, flush=True); time.sleep(60)\n"
    program = tried(body=ALL + daemon + SEND + "; next(lines); time.sleep(60)", timeout_s=60.0)
    simulation = program.problem.program.simulate({"k": 1.5})
    next(simulation)
    wait_until(lambda: len(program.pids()) == 2)
    inner = parent_of(program.pids()[0])
    os.kill(inner if half == "inner" else parent_of(inner), number)
    with pytest.raises(ProgramFault, match=r"was ended after step 0, because its guard \(guard\.py\) was killed"):
        next(simulation)
    assert program.are_gone()
    wait_until(lambda: not Path(f"/proc/{inner}").exists())


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
