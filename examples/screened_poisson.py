"""A user-defined PDE in one file.

It is trained by `penstock train examples/screened_poisson.yaml`:

    -Δu + k² u = f on the unit square, u = 0 on its boundary,

from the screening k, a scalar, and the source f, a Gaussian field, to u. Central differences on the n x n interior
points (i h, j h), h = 1 / (n + 1), need PETSc alone: a problem may discretise in any way that ends in linear systems.
"""

from functools import cached_property

from scipy.sparse import diags_array, eye_array, kron

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Sample
from penstock.solvers.parameters.fields import GaussianField
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import LinearSystem, Problem


class ScreenedPoisson(Problem):
    """The screened Poisson equation -Δu + k² u = f on the unit square.

    Args:
        resolution: n, interior points along each side.
    """

    def __init__(self, *, resolution: int = 32):
        self.resolution = resolution
        self.space = ParameterSpace(screening=Uniform(1.0, 20.0, "1/m"), source=GaussianField(resolution))
        grid = Grid.of_inner_vertices((resolution, resolution))
        self.inputs = (FieldSpec(name="screening", unit="1/m"), FieldSpec(name="source", on=grid, unit="K/m^2"))
        self.outputs = (FieldSpec(name="solution", on=grid, unit="K"),)

    @cached_property
    def laplacian(self):
        """The SciPy matrix of -Δ by the 5-point stencil.

        It is built on first use, in the worker.
        """
        n = self.resolution
        second = diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(n, n)) * (n + 1) ** 2
        return (kron(second, eye_array(n)) + kron(eye_array(n), second)).tocsr()

    @cached_property
    def matrix(self):
        """The PETSc matrix that every simulation overwrites."""
        from mpi4py import MPI
        from petsc4py import PETSc

        A = self.laplacian
        return PETSc.Mat().createAIJ(A.shape, csr=(A.indptr, A.indices, A.data), comm=MPI.COMM_SELF)

    def simulate(self, parameters, solve):
        A = self.laplacian + parameters["screening"] ** 2 * eye_array(self.resolution**2)
        self.matrix.setValuesCSR(A.indptr, A.indices, A.data)
        self.matrix.assemble()
        b = self.matrix.createVecRight()
        b.array = parameters["source"].ravel()
        solution = solve(LinearSystem(A=self.matrix, b=b, is_spd=True))
        yield Sample(
            inputs={"screening": parameters["screening"], "source": parameters["source"]},
            outputs={"solution": solution.x.array_r.reshape(self.resolution, self.resolution)},
        )
