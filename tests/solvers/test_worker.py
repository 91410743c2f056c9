"""Leases in, chunks out: sizes, failures, order."""

import re
import signal
from dataclasses import replace

import numpy as np
import pytest

from penstock.geometry import Grid, Points
from penstock.layout import FieldSpec, Sample
from penstock.messages import CHUNK_BYTES, Lease
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.parameters.point_sets import Sobol
from penstock.solvers.parameters.space import ParameterSpace, Uniform, generator_of
from penstock.solvers.problem import LinearSystem, Problem
from penstock.solvers.problems.steady.darcy import Darcy
from penstock.solvers.worker import SolverWorker


class Steps(Problem):
    """A problem with three samples per simulation, of one number each.

    It fails where the test says so.
    """

    def __init__(self, size=4, fail=None):
        self.space = ParameterSpace(x=Uniform(0.0, 1.0))
        self.inputs = (FieldSpec(name="x"), FieldSpec(name="a", on=Grid((size,))))
        self.outputs = (FieldSpec(name="u", on=Grid((size,))),)
        self.size = size
        self.fail = fail or (lambda x, step: None)

    def simulate(self, parameters, solve):
        for step in range(3):
            self.fail(parameters["x"], step)
            field = np.full(self.size, parameters["x"])
            yield Sample(inputs={"x": parameters["x"], "a": field}, outputs={"u": field + step}, step=step)


def worker_of(problem, strategy=None, *, sort=False, seed=0) -> SolverWorker:
    return SolverWorker(problem, {"training": LinearSolver(strategy or Direct(), rtol=1e-8)}, seed=seed, sort=sort)


def lease(*simulations, design="training") -> Lease:
    return Lease(number=0, simulations=simulations, design=design)


def joined(chunks):
    """The rows of all chunks as (simulation, step) -> target value."""
    return {
        (int(i), int(step)): target.flat[0]
        for chunk in chunks
        for i, step, target in zip(chunk.simulations, chunk.steps, chunk.arrays["targets"], strict=True)
    }


def test_every_sample_comes_once_and_every_simulation_finishes():
    chunks = list(worker_of(Steps()).stream(lease(4, 2, 7)))
    rows = joined(chunks)
    assert sorted(rows) == [(i, step) for i in (2, 4, 7) for step in range(3)]
    assert sorted(i for chunk in chunks for i in chunk.finished) == [2, 4, 7]
    assert rows[2, 2] == pytest.approx(rows[2, 0] + 2)


def test_any_worker_redoes_a_simulation_and_designs_are_apart():
    first, again = (joined(worker_of(Steps()).stream(lease(*ids))) for ids in ((0, 1, 2), (2,)))
    assert again[2, 0] == first[2, 0]
    assert joined(worker_of(Steps()).stream(lease(2, design="validation")))[2, 0] != first[2, 0]
    assert joined(worker_of(Steps(), seed=1).stream(lease(2)))[2, 0] != first[2, 0]


def test_chunks_are_sent_when_they_are_full():
    size = CHUNK_BYTES // 40  # a sample is then 2 x 4 bytes x size, a fifth of a chunk
    chunks = list(worker_of(Steps(size)).stream(lease(*range(10))))
    assert len(chunks) > 5
    assert max(chunk.num_bytes for chunk in chunks) < CHUNK_BYTES + Steps(size).layout.sample_bytes
    assert len(joined(chunks)) == 30


def test_a_failing_simulation_fails_alone_with_its_place():
    def fail(x, step):
        if x > 0.5 and step == 1:
            raise ZeroDivisionError("no depth left")

    chunks = list(worker_of(Steps(fail=fail)).stream(lease(*range(20))))
    failed = {i: reason for chunk in chunks for i, reason in chunk.failed.items()}
    finished = [i for chunk in chunks for i in chunk.finished]
    assert 3 < len(failed) < 17 and sorted([*failed, *finished]) == list(range(20))
    assert {i for i, _ in joined(chunks)} == set(finished)
    reason = next(iter(failed.values()))
    assert reason.startswith("ZeroDivisionError: no depth left (") and "test_worker.py, line" in reason


def test_a_failing_draw_fails_alone():
    class Picky(Steps):
        def draw(self, generator):
            parameters = super().draw(generator)
            if parameters["x"] > 0.5:
                raise LookupError("no such material")
            return parameters

    chunks = list(worker_of(Picky(), sort=True).stream(lease(*range(20))))
    failed = {i: reason for chunk in chunks for i, reason in chunk.failed.items()}
    assert 3 < len(failed) < 17
    assert sorted([*failed, *(i for chunk in chunks for i in chunk.finished)]) == list(range(20))


class Mute(Exception):
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize("where", ["simulate", "draw", "features"])
@pytest.mark.parametrize(
    "error",
    [
        *(
            KeyboardInterrupt(),
            GeneratorExit(),
            SystemExit(3),
            StopIteration(),
            BaseException("base"),
            RecursionError(),
        ),
        *(Mute(), ValueError("mesh_\udcff.msh"), ValueError(b"\xff"), ValueError(1_000_000 * "x"), MemoryError()),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_problem_raises_its_simulation_fails_alone_in_one_line(where, error, caplog):
    class Odd(Steps):
        def draw(self, generator):
            parameters = super().draw(generator)
            self.fail_in("draw", parameters)
            return parameters

        def features(self, parameters):
            self.fail_in("features", parameters)
            return np.zeros(1)

        def simulate(self, parameters, solve):
            self.fail_in("simulate", parameters)
            yield from super().simulate(parameters, solve)

        def fail_in(self, place, parameters):
            if place == where and parameters["x"] > 0.5:
                raise error

    worker = worker_of(Odd(), sort=True)
    for ids in (range(20), range(20, 40)):  # the worker lives on
        chunks = list(worker.stream(lease(*ids)))
        failed = {i: reason for chunk in chunks for i, reason in chunk.failed.items()}
        finished = [i for chunk in chunks for i in chunk.finished]
        assert 3 < len(failed) < 17 and sorted([*failed, *finished]) == list(ids)
        assert all(reason.isprintable() and len(reason) < 800 for reason in failed.values())
        assert all("test_worker.py, line" in reason or "raised StopIteration" in reason for reason in failed.values())
    assert all(len(record.getMessage().encode("utf-8")) < 25_000 for record in caplog.records)


def test_a_signal_and_the_end_of_the_stream_are_no_failures(monkeypatch):
    def interrupt(x, step):
        if x > 0.5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        list(worker_of(Steps(fail=interrupt)).stream(lease(*range(20))))
    monkeypatch.setattr("penstock.solvers.worker.CHUNK_SECONDS", 0.0)
    worker = worker_of(Steps())
    stream = worker.stream(lease(0, 1))
    next(stream)
    stream.close()
    worker.problem.fail = lambda x, step: {}[step]
    assert sorted(i for chunk in worker.stream(lease(0, 1)) for i in chunk.failed) == [0, 1]


def test_every_sample_carries_the_ranks_of_its_draw():
    problem = Steps()
    problem.space = ParameterSpace(x=Uniform(0.0, 4.0))
    rows = 0
    for chunk in worker_of(problem).stream(lease(0, 1, 2)):
        assert chunk.quantiles.shape == (len(chunk), 1) and chunk.quantiles.dtype == np.float32
        np.testing.assert_allclose(4 * chunk.quantiles, chunk.arrays["scalars"], rtol=1e-6)
        rows += len(chunk)
    assert rows == 9


def test_training_lies_on_the_points_of_its_design_whoever_solves_it():
    """The other designs are drawn independently. The first 16 points of Sobol's are one per sixteenth."""

    def solved(*simulations, design="training", point_sets=True):
        options = {"point_sets": {"training": Sobol(1, 3, "training")}} if point_sets else {}
        solvers = {"training": LinearSolver(Direct(), rtol=1e-8)}
        worker = SolverWorker(Steps(), solvers, seed=3, sort=False, **options)
        chunks = list(worker.stream(lease(*simulations, design=design)))
        for chunk in chunks:
            np.testing.assert_allclose(chunk.quantiles, chunk.arrays["scalars"], rtol=1e-6)
        return joined(chunks)

    together = solved(*range(16))
    assert sorted(int(16 * value) for (_, step), value in together.items() if step == 0) == list(range(16))
    assert together == solved(*range(8, 16)) | solved(7, 6, 5, 4) | solved(0, 3, 2, 1)
    assert solved(0, 1, design="validation") == solved(0, 1, design="validation", point_sets=False)
    assert solved(0, 1) != solved(0, 1, point_sets=False)


def test_a_problem_with_draws_of_its_own_has_no_ranks():
    class Own(Steps):
        def draw(self, generator):
            return {"x": generator.standard_normal()}

    assert Own().quantile_names == ()
    for chunk in worker_of(Own()).stream(lease(0, 1)):
        assert chunk.quantiles.shape == (len(chunk), 0) and len(chunk)


@pytest.mark.parametrize(
    ("num_steps", "reason"),
    [
        (1, None),
        (3, None),
        (2, "step 2 was yielded, and steps are 0 to 1 (num_steps is 2)"),
        (4, "3 samples were yielded, and the problem's num_steps is 4"),
    ],
)
def test_a_simulation_must_have_the_steps_that_its_problem_says(num_steps, reason):
    problem = Steps()
    problem.num_steps = num_steps
    failed = {i: why for chunk in worker_of(problem).stream(lease(0, 1)) for i, why in chunk.failed.items()}
    assert len(failed) == (0 if reason is None else 2)
    assert all(reason in why for why in failed.values())


@pytest.mark.parametrize(("num_steps", "bad", "place"), [(1, 0, ""), (1, 1, "step 1: "), (3, 0, "step 0: ")])
def test_a_sample_that_is_refused_is_named_by_its_step(num_steps, bad, place):
    class NotFinite(Steps):
        def simulate(self, parameters, solve):
            for sample in super().simulate(parameters, solve):
                yield replace(sample, outputs={"u": sample.outputs["u"] * (np.nan if sample.step == bad else 1.0)})

    problem = NotFinite()
    problem.num_steps = num_steps
    (reason,) = (why for chunk in worker_of(problem).stream(lease(0)) for why in chunk.failed.values())
    assert reason == f"{place}'u' holds values that are not finite: 4 of 4, first at [0]"


class Careless(Steps):
    def simulate(self, parameters, solve):
        for sample in super().simulate(parameters, solve):
            yield Sample(inputs=sample.inputs, outputs=sample.outputs)


class Silent(Steps):
    def simulate(self, parameters, solve):
        return iter(())


class Shifty(Steps):
    def features(self, parameters):
        return np.zeros(1 + (parameters["x"] > 0.5))


def test_what_would_be_lost_in_silence_is_a_failure():
    for problem, reason in (
        (Careless(), "step 0 was yielded twice"),
        (Silent(), "simulate yielded no sample"),
        (Shifty(), "features have shape"),
    ):
        chunks = list(worker_of(problem, sort=True).stream(lease(*range(10))))
        failed = {i: why for chunk in chunks for i, why in chunk.failed.items()}
        finished = [i for chunk in chunks for i in chunk.finished]
        assert failed and sorted([*failed, *finished]) == list(range(10))
        assert all(reason in why for why in failed.values())
        assert {i for i, _ in joined(chunks)} == set(finished)


def test_values_that_are_not_finite_never_leave():
    problem = Steps()
    problem.space = ParameterSpace(x=Uniform(1e38, 1e39))  # beyond float32 for most draws
    chunks = list(worker_of(problem).stream(lease(*range(20))))
    failed = {i: reason for chunk in chunks for i, reason in chunk.failed.items()}
    assert len(failed) > 5 and "beyond float32's" in next(iter(failed.values()))
    assert all(np.isfinite(chunk.arrays["targets"]).all() for chunk in chunks)


class Singular(Darcy):
    """A problem with singular and inconsistent systems.

    No strategy of the ladder may claim a solution.
    """

    def simulate(self, parameters, solve):
        system = self.discretisation.system(parameters["coefficient"], np.ones_like(parameters["coefficient"]))
        solve(LinearSystem(A=system.A, b=system.b))  # the first of the family, which is examined before it is solved
        system.A.zeroRows([0], diag=0.0)
        system.b.setValue(0, 1.0)
        system.b.assemble()
        solve(LinearSystem(A=system.A, b=system.b))
        yield from ()


def test_an_unsolvable_system_is_retried_refused_and_named():
    chunks = list(worker_of(Singular(resolution=8), Krylov(max_iterations=50)).stream(lease(0, 1)))
    failed = {i: reason for chunk in chunks for i, reason in chunk.failed.items()}
    assert sorted(failed) == [0, 1]
    for said in (
        "its row 0 holds no entry but zeros",
        "krylov: ",
        "direct (mumps): ",
        "DIVERGED_PCSETUP_FAILED, FACTOR_NUMERIC_ZEROPIVOT",
    ):
        assert said in failed[0]
    assert sum(chunk.retried for chunk in chunks) == 2
    assert sum(len(chunk) for chunk in chunks) == 0


def test_headers_tell_every_solve():
    chunks = list(worker_of(Darcy(resolution=8), Krylov(ksp="cg", pc="jacobi")).stream(lease(*range(5))))
    solves = [solve for chunk in chunks for solve in chunk.solves]
    assert len(solves) == 5
    assert all(s.strategy == "krylov" and s.iterations > 5 and s.relative_residual <= 1e-8 for s in solves)


class WithoutFeatures(Darcy):
    def features(self, parameters):
        raise AssertionError("nobody needs them")


def test_features_are_made_only_for_strategies_that_gain_from_order():
    for strategy, num_failed in ((Krylov(ksp="cg"), 0), (GCRODR(m=10, k=0), 0), (GCRODR(m=10, k=5), 1)):
        worker = worker_of(WithoutFeatures(resolution=8), strategy, sort="auto")
        chunks = [chunk for start in (0, 4) for chunk in worker.stream(lease(*range(start, start + 4)))]
        assert sum(len(chunk.failed) for chunk in chunks) == num_failed  # the last of the second window


def test_sorting_where_it_pays_loses_no_simulation():
    worker = worker_of(Darcy(resolution=8), GCRODR(m=10, k=5), sort="auto")
    for start in range(0, 15 * 8, 8):
        chunks = list(worker.stream(lease(*range(start, start + 8))))
        assert sorted(i for chunk in chunks for i in chunk.finished) == list(range(start, start + 8))


def test_sorting_shortens_the_way_and_goes_on_from_the_last_system():
    problem = Darcy(resolution=16)
    sorted_worker, plain = worker_of(problem, sort=True), worker_of(problem)

    def way(worker) -> float:
        fields = [
            chunk.arrays["fields"].reshape(len(chunk), -1)
            for start in (0, 40)
            for chunk in worker.stream(lease(*range(start, start + 40)))
        ]
        return float(np.linalg.norm(np.diff(np.concatenate(fields), axis=0), axis=1).sum())

    assert way(sorted_worker) < 0.95 * way(plain)


def test_a_deterministic_lease_gives_the_same_bits_whatever_came_before():
    """A deterministic lease gives the same bits, whatever came before.

    Otherwise GCRO-DR and the sorter keep data of earlier systems, and a clock cuts chunks.
    """

    def chunks(must_repeat, *leases):
        solvers = {"training": LinearSolver(GCRODR(m=10, k=5), rtol=1e-4)}
        worker = SolverWorker(Darcy(resolution=16), solvers, seed=0, sort=True, must_repeat=must_repeat)
        return [list(worker.stream(ids)) for ids in leases][-1]

    def bits(must_repeat, *leases):
        (chunk,) = chunks(must_repeat, *leases)
        return [chunk.simulations.tolist(), chunk.arrays["targets"].tobytes()]

    first, second = lease(*range(8)), lease(*range(8, 16))
    assert bits(True, second) == bits(True, first, second) == bits(True, second, first, second)
    assert bits(False, second) != bits(False, first, second)


def test_deterministic_chunks_are_cut_by_their_size_alone(monkeypatch):
    size = CHUNK_BYTES // 40
    expected = [len(chunk) for chunk in worker_of(Steps(size)).stream(lease(*range(10)))]
    monkeypatch.setattr("penstock.solvers.worker.CHUNK_SECONDS", 0.0)  # as if every sample took long
    assert max(len(chunk) for chunk in worker_of(Steps(size)).stream(lease(*range(10)))) == 1
    solvers = {"training": LinearSolver(Direct(), rtol=1e-8)}
    worker = SolverWorker(Steps(size), solvers, seed=0, sort=False, must_repeat=True)
    assert [len(chunk) for chunk in worker.stream(lease(*range(10)))] == expected


class Yields(Steps):
    """A problem that yields `what(sample)` in place of its samples."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def simulate(self, parameters, solve):
        return self.what(list(super().simulate(parameters, solve)))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (lambda samples: None, "simulate returned a NoneType: it must yield Samples"),
        (lambda samples: samples[0], "simulate returned a Sample: it must yield Samples"),
        (lambda samples: [vars(sample) for sample in samples], "simulate yielded a dict: it must yield Samples"),
        (lambda samples: [samples], "simulate yielded a list: it must yield Samples"),
        (lambda samples: [Sample(inputs=samples[0].inputs, outputs={})], "the sample lacks 'u'"),
    ],
)
def test_what_is_no_sample_fails_its_simulation_in_one_line_without_a_place_in_our_code(what, reason):
    chunks = list(worker_of(Yields(what)).stream(lease(0, 1)))
    assert [chunk.failed for chunk in chunks] == [{0: reason, 1: reason}]


def test_a_float_step_names_the_users_own_line():
    problem = Yields(lambda samples: [Sample(inputs={}, outputs={}, step=0.1)])
    (chunk,) = worker_of(problem).stream(lease(0))
    assert "step=0.1 must be an integer" in chunk.failed[0] and "test_worker.py, line" in chunk.failed[0]


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (1j * np.ones(3), "'features' is complex"),
        (["steel", "copper"], "'features' is text"),
        (np.ones((2, 3)), r"features have shape \(2, 3\): give one vector"),
        (3.0, r"features have shape \(\): give one vector"),
        ([1.0, np.nan], "features are not finite"),
        ({"k": 1.0}, "'features' is a dict"),
        (None, "'features' is None"),
    ],
)
def test_parameters_that_can_be_no_features_are_named(features, reason):
    class Odd(Steps):
        def features(self, parameters):
            return features

    (chunk,) = worker_of(Odd(), sort=True).stream(lease(0))
    assert re.search(reason, chunk.failed[0])


@pytest.mark.parametrize("quantiles", [np.zeros(2), 0.5, np.array([1.5]), np.array([np.nan]), np.array([0.5j]), ["a"]])
def test_ranks_that_are_none_fail_the_draw_and_not_the_worker(quantiles):
    class Odd(Steps):
        def quantiles(self, generator):
            return quantiles

    (chunk,) = worker_of(Odd()).stream(lease(0, 1))
    assert sorted(chunk.failed) == [0, 1] and "quantiles" in chunk.failed[0]


class Moving(Steps):
    """Its points move after the first step where x is large."""

    def __init__(self):
        super().__init__()
        cloud = Points(4, 1)
        self.inputs, self.outputs = (FieldSpec(name="x"),), (FieldSpec(name="u", on=cloud),)

    def simulate(self, parameters, solve):
        for step in range(3):
            points = np.linspace(0, 1, 4)[:, None] * (0.5 if step and parameters["x"] > 0.5 else 1)
            yield Sample(
                inputs={"x": parameters["x"]},
                outputs={"u": np.arange(4.0)},
                step=step,
                geometry={"points": points, "weights": np.full(4, 0.25)},
            )


def test_points_that_move_fail_their_simulation_where_one_geometry_is_kept_of_it():
    moves = {i: Moving().draw(generator_of(0, "training", i))["x"] > 0.5 for i in range(20)}
    assert 0 < sum(moves.values()) < 20
    for one_geometry in (True, False):
        worker = SolverWorker(
            Moving(), {"training": LinearSolver(Direct(), rtol=1e-8)}, seed=0, sort=False, one_geometry=one_geometry
        )
        failed = {i: why for chunk in worker.stream(lease(*range(20))) for i, why in chunk.failed.items()}
        assert failed.keys() == {i for i, it_does in moves.items() if it_does and one_geometry}
        assert all("'points' changes from step to step" in why for why in failed.values())


def test_a_rank_solves_what_the_first_one_does_whatever_its_own_clock_says():
    """Ranks must solve the same systems in the same order, or they would wait for each other without end.

    Here this rank's own order is another one, and making features fails on it alone.
    """

    class Featureless(Steps):
        def features(self, parameters):
            raise ValueError("no features here")

    def first_rank(value):
        return [3, 1, 2] if isinstance(value, list) else value

    solvers = {"training": LinearSolver(Direct(), rtol=1e-8)}
    worker = SolverWorker(Featureless(), solvers, seed=0, sort=True, agree=first_rank)
    chunks = list(worker.stream(lease(1, 2, 3)))
    assert [i for chunk in chunks for i in chunk.finished] == [3, 1, 2]
    full = SolverWorker(Steps(), solvers, seed=0, agree=lambda value: value if isinstance(value, list) else True)
    assert list(full.stream(lease(1, 2, 3))) == []  # the first one has outgrown its memory
