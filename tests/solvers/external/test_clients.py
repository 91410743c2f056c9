"""The clients: points that vary, forks, wrong shapes."""

import shutil
import subprocess

import numpy as np
import pytest

from penstock.solvers.external import INCLUDE
from penstock.solvers.external.process import ProgramFault
from penstock.solvers.problem import SolveError
from penstock.solvers.problems.external import External

# A fan of triangles around the origin: n + 1 points, as many as the parameter says.
FAN = {
    "parameters": {"n": {"law": "discrete", "values": [5, 7]}},
    "geometries": {"fan": {"kind": "points", "max_points": 9, "dimension": 2, "max_edges": 8,
                           "origin": [-1, -1], "extent": [2, 2]}},
    "inputs": {"n": {}},
    "outputs": {"u": {"geometry": "fan", "components": 2}, "mean": {}},
}  # fmt: skip
IN_PYTHON = """
import numpy as np
from penstock.solvers.external.client import Program
program = Program()
for parameters in program:
    n = int(parameters["n"])
    angles = 2 * np.pi * np.arange(n) / n
    points = np.vstack([[0, 0], np.column_stack([np.cos(angles), np.sin(angles)])])
    edges = np.column_stack([np.zeros(n), 1 + np.arange(n)])
    program.send(step=0, points=points, weights=np.full(n + 1, 0.1), edges=edges, u=points.T, mean=n)
"""
IN_C = """
#include <math.h>
#include "penstock.h"
int main(void) {
    penstock_open();
    const double *n = penstock_parameter("n", 1);
    double *points = penstock_array("points", 18), *weights = penstock_array("weights", 9);
    double *edges = penstock_array("edges", 16), *u = penstock_array("u", 18), *mean = penstock_array("mean", 1);
    while (penstock_next()) {
        int num = (int)*n + 1;
        for (int i = 0; i < num; i++) {
            points[2 * i] = i ? cos(2 * M_PI * (i - 1) / *n) : 0;
            points[2 * i + 1] = i ? sin(2 * M_PI * (i - 1) / *n) : 0;
            u[i] = points[2 * i];
            u[num + i] = points[2 * i + 1];
            weights[i] = 0.1;
            if (i) edges[2 * i - 2] = 0, edges[2 * i - 1] = i;
        }
        *mean = *n;
        penstock_count("points", (size_t)num);
        penstock_count("edges", (size_t)num - 1);
        penstock_send(0, 0.0);
    }
}
"""
IN_FORTRAN = """
program fan
    use penstock
    implicit none
    real(8), parameter :: pi = acos(-1d0)
    real(8), pointer :: n(:), points(:), weights(:), edges(:), u(:), mean(:)
    integer :: i, num
    call penstock_open()
    n => penstock_parameter("n", 1)
    points => penstock_array("points", 18)
    weights => penstock_array("weights", 9)
    edges => penstock_array("edges", 16)
    u => penstock_array("u", 18)
    mean => penstock_array("mean", 1)
    do while (penstock_next())
        num = int(n(1)) + 1
        points(1:2) = 0
        do i = 2, num
            points(2 * i - 1:2 * i) = [cos(2 * pi * (i - 2) / n(1)), sin(2 * pi * (i - 2) / n(1))]
            edges(2 * i - 3:2 * i - 2) = [0, i - 1]
        end do
        u(:num) = points(1:2 * num:2)
        u(num + 1:2 * num) = points(2:2 * num:2)
        weights(:num) = 0.1d0
        mean(1) = n(1)
        call penstock_count("points", num)
        call penstock_count("edges", num - 1)
        call penstock_send(0, 0d0)
    end do
end program
"""


@pytest.mark.parametrize("language", ["python", "c", "fortran"])
def test_points_that_vary_arrive_as_they_were_written(language, tried, tmp_path):
    """The fan has n + 1 points on the unit circle and its centre; twice larger, once smaller."""
    if language == "python":
        problem = tried(IN_PYTHON, **FAN).problem
    else:
        compiler = {"c": "cc", "fortran": "gfortran"}[language]
        if not shutil.which(compiler):
            pytest.skip(f"there is no compiler {compiler!r}")
        source = tmp_path / {"c": "fan.c", "fortran": "fan.f90"}[language]
        source.write_text({"c": IN_C, "fortran": IN_FORTRAN}[language])
        module = [INCLUDE / "penstock.f90"] if language == "fortran" else []
        command = [compiler, f"-I{INCLUDE}", *module, source, "-o", tmp_path / "fan", "-lm"]
        subprocess.run(command, check=True, cwd=tmp_path)
        problem = External(command=str(tmp_path / "fan"), spec=FAN)
    samples = [sample for n in (5, 7, 5) for sample in problem.simulate({"n": n}, None)]
    for n, sample in zip((5, 7, 5), samples, strict=True):
        points = sample.geometry["points"]
        assert points.shape == (n + 1, 2)
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), [0, *n * [1]], atol=1e-15)
        np.testing.assert_allclose(np.arctan2(*points[2, ::-1]), 2 * np.pi / n)
        np.testing.assert_array_equal(sample.outputs["u"], points.T)
        np.testing.assert_array_equal(sample.geometry["edges"], [(0, i) for i in range(1, n + 1)])
        assert sample.geometry["weights"].tolist() == [0.1] * (n + 1)
        assert sample.outputs["mean"] == n
    problem.layout.pack(samples)
    problem.program.stop()


CLIENT = "from penstock.solvers.external.client import Program\nprogram = Program()\nfor parameters in program:\n    "
MISUSES = {
    "shape": ("program.send(step=0, u=[0.0] * 7)", r"'u' has shape \[7\], and in the spec \[8\]"),
    "axis": ("program.send(step=0, u=[[0.0] * 8])", r"'u' has shape \[1, 8\], and in the spec \[8\]"),
    "name": ("program.send(step=0, v=[0.0] * 8)", "there is no array 'v'; known: u"),
    "fork": (
        "import os, time\n    os.fork() and time.sleep(20)\n    program.send(step=0, u=[0.0] * 8)",
        r"process \d+ was forked from \d+, which alone may speak to penstock",
    ),
    "error": ("parameters['viscosity']", "ended with exit code 1 before"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_misuse_is_named(tried, misuse):
    body, message = MISUSES[misuse]
    problem = tried(CLIENT + body).problem
    with pytest.raises(ProgramFault, match=message):
        list(problem.simulate({"k": 1.5}, None))


def test_the_client_in_python_can_give_up_and_go_on(tried):
    body = "program.beat()\n    "
    body += "program.fail('too large') if parameters['k'] > 2 else program.send(step=0, u=[0] * 8)"
    problem = tried(CLIENT + body).problem
    with pytest.raises(SolveError, match=r"program\.py: too large"):
        list(problem.simulate({"k": 3.0}, None))
    assert len(list(problem.simulate({"k": 1.5}, None))) == 1


def test_a_fork_in_c_that_speaks_is_named(tmp_path):
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler `cc`")
    (tmp_path / "forks.c").write_text(
        '#include "penstock.h"\nint main(void) { penstock_open(); double *u = penstock_array("u", 1);\n'
        "while (penstock_next()) { *u = 1; if (fork()) sleep(20); penstock_send(0, 0); } }"
    )
    subprocess.run(["cc", f"-I{INCLUDE}", "forks.c", "-o", "forks"], check=True, cwd=tmp_path)
    problem = External(command=str(tmp_path / "forks"), spec={"outputs": {"u": {}}})
    with pytest.raises(ProgramFault, match=r"process \d+ was forked from \d+"):
        list(problem.simulate({}, None))
