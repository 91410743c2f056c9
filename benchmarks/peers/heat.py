"""The heat equation on TensorMesh's mesh: our worker beside its loop and others."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse.linalg import splu

from benchmarks.solvers.report import report
from benchmarks.turns import in_turns
from penstock.errors import PenstockError
from penstock.geometry import Mesh
from penstock.layout import FieldSpec, Sample
from penstock.machine import keep_freed_arrays
from penstock.messages import Lease
from penstock.solvers import mpi
from penstock.solvers.discretisation.elements.mesh_fem import MeshElements
from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.auto.auto import Auto
from penstock.solvers.parameters.space import ParameterSpace, Uniform, generator_of
from penstock.solvers.problem import InterleavedProblem, LinearSystem, Parameters, Turns
from penstock.solvers.worker import SolverWorker

NUM_STEPS, TIME_STEP, NUM_MODES, RESOLUTION = 100, 5e-5, 16, 125  # TensorMesh's
ACCURACY = 1e-3  # penstock's default
WINDOW = 8
BLOCKS = (8, 16, 64)  # trajectories through a kept factor at once
EXAMPLE_BLOCK = 1000  # those of TensorMesh's example
NUM_COMPARED = 5  # steps of one trajectory, which ours and TensorMesh's must give alike
LARGEST_DIFFERENCE = 1e-6  # single precision, in which our samples travel
INTRODUCTION = """
The data set that TensorMesh has as an example (examples/dataset/heat): implicit Euler with P1 elements on its mesh of
the L-shaped domain, {unknowns:,} points, {num_steps} steps, initial values of {modes} modes. Ours is a worker as in a
run, with `strategy: auto`, from the draw to packed chunks, each solution checked. The other loops step a block of
trajectories at once, with the matrices that TensorMesh assembles, and neither check nor pack: TensorMesh's example,
which factors at every step; TensorMesh with its factor kept, by `SparseMatrix.lu`; and SciPy's SuperLU, with the order
and the pivots for symmetric matrices and the factor kept. Factors that are kept are made before the clock starts, and
so is what `auto` tries. A sample is a state of one trajectory. All run in turns in one process on one core; times are
medians of CPU time, since other programs ran beside. TensorMesh publishes 1.23 ms on a CPU. After {compared} steps all
agree to {difference:.0e}.

The fastest loop without penstock is {peer}: ours takes {quotient:.2f} times as long per sample.
"""


class HeatOnMesh(InterleavedProblem):
    """TensorMesh's example: M (u_i - u_{i-1}) + Δt K u_i = 0, u = 0 on the boundary.

    u_0 = -1/d Σ_m μ_m sin(π m x) sin(π m y) / √m, with μ_m uniform on [0, 1]; d = 16 of them.

    Args:
        points: of the mesh, [P, 2].
        cells: of the mesh, [T, 3].
    """

    num_steps = NUM_STEPS

    def __init__(self, points: np.ndarray, cells: np.ndarray):
        names = [f"mu_{mode}" for mode in range(1, NUM_MODES + 1)]
        self.space = ParameterSpace(**dict.fromkeys(names, Uniform(0.0, 1.0)))
        self.mesh = Mesh(len(points), 2, lambda: (points, cells))
        self.inputs = (*(FieldSpec(name=name) for name in names), FieldSpec(name="time"))
        self.outputs = (FieldSpec(name="solution", on=self.mesh),)

    def turns(self, parameters: Parameters) -> Turns:
        matrix, mass, right = self.equation
        amplitudes = np.array([parameters[f"mu_{mode}"] for mode in range(1, NUM_MODES + 1)])
        u = self.elements.at_dofs(self.modes @ amplitudes)
        for step in range(self.num_steps):
            mass.mult(u, right)
            solution = yield LinearSystem(A=matrix, b=right, is_spd=True, guess=u, family="heat")
            u = solution.x
            outputs = {"solution": self.elements.at_points(u)}
            yield Sample(inputs=dict(parameters), outputs=outputs, step=step, time=(step + 1) * TIME_STEP)

    @cached_property
    def elements(self) -> MeshElements:
        return MeshElements(self.mesh.arrays)

    @cached_property
    def equation(self) -> tuple[Any, Any, Any]:
        """M + Δt K, M without its rows on the boundary, and a vector for b."""
        from dolfinx.fem import form
        from dolfinx.fem.petsc import assemble_matrix
        from ufl import dx, grad, inner

        u, v, conditions = self.elements.trial, self.elements.test, self.elements.conditions
        matrix = assemble_matrix(form(u * v * dx + TIME_STEP * inner(grad(u), grad(v)) * dx), bcs=conditions)
        mass = assemble_matrix(form(u * v * dx))
        for assembled in (matrix, mass):
            assembled.assemble()
        mass.zeroRowsLocal(conditions[0].dof_indices()[0], diag=0.0)
        return matrix, mass, mass.createVecLeft()

    @cached_property
    def modes(self) -> np.ndarray:
        """The initial values for each mode alone, [P, modes]."""
        numbers = np.arange(1, NUM_MODES + 1)
        x, y = (np.sin(np.pi * numbers * coordinate[:, None]) for coordinate in self.mesh.arrays.points.T)
        return -x * y / np.sqrt(numbers) / NUM_MODES


class Ours:
    """A worker with at most this number of simulations under way."""

    def __init__(self, problem: HeatOnMesh, num_at_once: int):
        solver = LinearSolver(Auto(), accuracy=ACCURACY)
        self._worker = SolverWorker(problem, {"training": solver}, seed=0, num_at_once=num_at_once)
        self._numbers = count()
        self.num_samples = WINDOW * NUM_STEPS  # of a call

    def __call__(self) -> None:
        """Solve a lease."""
        number = next(self._numbers)
        simulations = tuple(range(number * WINDOW, (number + 1) * WINDOW))
        for _ in self._worker.stream(Lease(number=number, simulations=simulations)):
            pass


class TensorMeshs:
    """The loop of TensorMesh's example, on a mesh of TensorMesh.

    Args:
        mesh: the mesh.
        initial: u_0 of each trajectory, [P, trajectories].
        keeps_factor: instead of factoring at every step.
    """

    def __init__(self, mesh: Any, initial: np.ndarray, *, keeps_factor: bool = False):
        import torch

        self._mass, self._condenser, matrix = _assembled(mesh)
        self._solver = matrix.lu() if keeps_factor else matrix
        self._states = torch.from_numpy(initial)
        self.num_samples = initial.shape[1]

    def __call__(self) -> None:
        """Take one step of all trajectories."""
        right = self._condenser.condense_rhs(self._mass @ self._states)
        self._states = self._condenser.recover(self._solver.solve(right))

    @property
    def states(self) -> np.ndarray:
        """The trajectories' last states, [P, trajectories]."""
        return self._states.numpy()


class SciPys:
    """The loop of a practitioner: SuperLU's factor kept, unknowns off the boundary alone.

    Args:
        mesh: the mesh.
        initial: u_0 of each trajectory, [P, trajectories].
    """

    def __init__(self, mesh: Any, initial: np.ndarray):
        mass, _, matrix = _assembled(mesh)
        self._inner = np.flatnonzero(~mesh.boundary_mask.numpy())
        rows = mass.to_scipy_coo().tocsr()[self._inner]
        self._mass = rows[:, self._inner]
        self._right = rows @ initial  # which alone is not 0 on the boundary
        self._factors = splu(
            matrix.to_scipy_coo().tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        self._num_points = len(initial)
        self.num_samples = initial.shape[1]

    def __call__(self) -> None:
        """Take one step of all trajectories."""
        self._states = self._factors.solve(self._right)
        self._right = self._mass @ self._states

    @property
    def states(self) -> np.ndarray:
        """The trajectories' last states, [P, trajectories]."""
        states = np.zeros((self._num_points, self.num_samples))
        states[self._inner] = self._states
        return states


def run(arguments: argparse.Namespace) -> None:
    """Compare, and print and write the table.

    Args:
        arguments: `names`, none or heat; `seconds` of CPU time per arm; `resolution`, points along a side of length 1.

    Raises:
        PenstockError: TensorMesh is missing, another problem is asked for, or the solutions differ.
    """
    if set(arguments.names) - {"heat"}:
        raise PenstockError("the problem here is heat")
    keep_freed_arrays()
    mpi.start()
    mesh = _mesh(arguments.resolution or RESOLUTION)
    problem = HeatOnMesh(mesh.points.numpy(), mesh.cells["triangle"].numpy())
    amplitudes = np.random.default_rng(0).random((NUM_MODES, EXAMPLE_BLOCK))
    difference = _difference(problem, mesh)
    if not difference <= LARGEST_DIFFERENCE:
        raise PenstockError(f"after {NUM_COMPARED} steps the solutions differ by {difference:.1e}")
    initial = problem.modes @ amplitudes
    ours: dict[str, Ours] = {"penstock, blocks of 8": Ours(problem, 8), "penstock, one at a time": Ours(problem, 1)}
    peers: dict[str, TensorMeshs | SciPys] = {
        **{f"SciPy, factor kept, {block} at once": SciPys(mesh, initial[:, :block]) for block in BLOCKS},
        **{
            f"TensorMesh, factor kept, {block} at once": TensorMeshs(mesh, initial[:, :block], keeps_factor=True)
            for block in BLOCKS
        },
        f"TensorMesh's example, {BLOCKS[-1]} at once": TensorMeshs(mesh, initial[:, : BLOCKS[-1]]),
        f"TensorMesh's example, {EXAMPLE_BLOCK} at once": TensorMeshs(mesh, initial),
    }
    seconds = _seconds(ours | peers, arguments.seconds)
    first = next(iter(ours))
    fastest = min(peers, key=seconds.__getitem__)
    rows = [
        [name, f"{1e3 * value:.2f}", f"{1 / value:.0f}", f"{value / seconds[first]:.2f}"]
        for name, value in seconds.items()
    ]
    introduction = INTRODUCTION.format(
        unknowns=problem.mesh.num_points,
        num_steps=NUM_STEPS,
        modes=NUM_MODES,
        compared=NUM_COMPARED,
        difference=difference,
        peer=fastest,
        quotient=seconds[first] / seconds[fastest],
    )
    introduction += f"TensorMesh {version('tensormesh-fem')}, torch-sla {version('torch-sla')}."
    header = ["loop", "ms per sample", "samples/s", "time"]
    command = " ".join(["peers heat", *([f"--seconds {arguments.seconds:g}"] if arguments.seconds != 5 else [])])
    report("peers-heat.md", "The heat equation beside TensorMesh", introduction, header, rows, command)


def _mesh(resolution: int) -> Any:
    try:
        import tensormesh
        import torch
    except ImportError as error:
        raise PenstockError(f"the peer is missing ({error}): pip install tensormesh-fem") from error
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "L.msh")
        return tensormesh.Mesh.gen_L(chara_length=1 / resolution, element_type="tri", cache_path=path)


def _assembled(mesh: Any) -> tuple[Any, Any, Any]:
    """TensorMesh's mass matrix, what drops the boundary's unknowns, and M + Δt K without them."""
    from tensormesh import Condenser, LaplaceElementAssembler, MassElementAssembler

    mass = MassElementAssembler.from_mesh(mesh, quadrature_order=2)()
    stiffness = LaplaceElementAssembler.from_mesh(mesh, quadrature_order=2)()
    condenser = Condenser(mesh.boundary_mask)
    return mass, condenser, condenser(mass + TIME_STEP * stiffness)[0]


def _difference(problem: HeatOnMesh, mesh: Any) -> float:
    """The largest relative difference of one trajectory's last state, ours and another loop's."""
    parameters = problem.draw(generator_of(0, "training", 0))
    samples = problem.simulate(parameters, LinearSolver(Auto(), accuracy=ACCURACY))
    ours = [next(samples).outputs["solution"] for _ in range(NUM_COMPARED)][-1]
    amplitudes = np.array(list(parameters.values()))
    initial = np.tile((problem.modes @ amplitudes)[:, None], 2)  # two, since TensorMesh factors for no fewer
    peers = [TensorMeshs(mesh, initial), TensorMeshs(mesh, initial, keeps_factor=True), SciPys(mesh, initial)]
    for _ in range(NUM_COMPARED):
        for peer in peers:
            peer()
    return max(float(np.linalg.norm(peer.states[:, 0] - ours) / np.linalg.norm(ours)) for peer in peers)


def _seconds(arms: Mapping[str, Ours | TensorMeshs | SciPys], seconds: float) -> dict[str, float]:
    """Median CPU seconds per sample of each arm, in turns after a warm-up.

    A call of an arm takes about as many samples as a lease of ours.
    """
    num_calls = {name: -(-WINDOW * NUM_STEPS // arm.num_samples) for name, arm in arms.items()}

    def round_of(name: str) -> Callable[[int], None]:
        def calls(number: int) -> None:
            for _ in range(num_calls[name]):
                arms[name]()

        return calls

    for arm in arms.values():
        arm()
    medians = in_turns([round_of(name) for name in arms], count(), seconds=seconds * len(arms)).medians
    num_samples = [num_calls[name] * arm.num_samples for name, arm in arms.items()]
    return dict(zip(arms, (medians / num_samples).tolist(), strict=True))
