"""The clients: points that vary, forks, wrong shapes."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from penstock.solvers.external import INCLUDE
from penstock.solvers.external.process import Misfit, ProgramFault
from penstock.solvers.external.protocol import DESCRIPTORS, SharedMemory
from penstock.solvers.parameters.space import generator_of
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
        command = command_of(language, {"c": IN_C, "fortran": IN_FORTRAN}[language], tmp_path)
        problem = External(command=command, spec=FAN)
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
    "error": ("parameters['viscosity']", "ended with exit code 1 before its first sample"),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_misuse_is_named(tried, misuse):
    body, message = MISUSES[misuse]
    problem = tried(CLIENT + body).problem
    with pytest.raises(ProgramFault if misuse == "error" else Misfit, match=message):
        list(problem.simulate({"k": 1.5}, None))


def test_the_client_in_python_can_give_up_and_go_on(tried):
    body = "program.beat()\n    "
    body += "program.fail('too large') if parameters['k'] > 2 else program.send(step=0, u=[0] * 8)"
    problem = tried(CLIENT + body).problem
    with pytest.raises(SolveError, match=r"program\.py: too large"):
        list(problem.simulate({"k": 3.0}, None))
    assert len(list(problem.simulate({"k": 1.5}, None))) == 1


# What is called, in Python, C and Fortran.
CALLS = {
    "send": ("send(step=0)", "send(0, 0)", "send(0, 0d0)"),
    "fail": ("fail('again')", 'fail("again")', 'fail("again")'),
    "beat": ("beat()", "beat()", "beat()"),
}
OUTSIDE = {
    "python": (
        "import sys\nfrom penstock.solvers.external.client import Program\nprogram = Program()\n"
        "if sys.argv[1:]:\n    program.{call}\n"
        "for parameters in program:\n    program.fail('too large:\\n3')\n    program.{call}\n"
    ),
    "c": (
        '#include "penstock.h"\nint main(int argc, char **argv) {{ (void)argv; penstock_open();\n'
        "if (argc > 1) penstock_{call};\n"
        'while (penstock_next()) {{ penstock_fail("too large:\\n3"); penstock_{call}; }} }}'
    ),
    "fortran": (
        "program main\nuse penstock\ncall penstock_open()\n"
        "if (command_argument_count() > 0) call penstock_{call}\n"
        'do while (penstock_next())\ncall penstock_fail("too large:" // new_line("a") // "3")\n'
        "call penstock_{call}\nend do\nend program"
    ),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("language", OUTSIDE)
def test_no_client_speaks_outside_of_a_simulation(language, call, tmp_path):
    """After it was given up, which the next simulation finds, and before the first."""
    text = OUTSIDE[language].format(call=CALLS[call][list(OUTSIDE).index(language)])
    problem = External(command=command_of(language, text, tmp_path), spec={"outputs": {"u": {}}})
    with pytest.raises(SolveError, match="too large: 3"):
        list(problem.simulate({}, None))
    with pytest.raises(ProgramFault, match=f"no simulation is under way, .* and the program called (penstock_)?{call}"):
        list(problem.program.simulate({}))
    problem.command += " early"
    del problem.program
    with pytest.raises(Misfit, match=f"and the program called (penstock_)?{call}"):
        list(problem.simulate({}, None))


@pytest.mark.parametrize(("said", "message"), [
    ("simulate", "waited for a simulation and heard '?simulate'?$"),
    ("simulate 1x", "waited for a simulation and heard '?simulate 1x'?$"),
    ("taken", "waited for a simulation and heard '?taken'?$"),
    ("simulate 1\nsimulate 2", "sent a sample and heard '?simulate 2'?$"),
])  # fmt: skip
@pytest.mark.parametrize("language", OUTSIDE)
def test_a_client_checks_what_it_hears(language, said, message, tmp_path):
    """A host of the test says one wrong line."""
    text = {
        "python": CLIENT + "program.send(step=0)",
        "c": '#include "penstock.h"\nint main(void) { penstock_open(); while (penstock_next()) penstock_send(0, 0); }',
        "fortran": "program main\nuse penstock\ncall penstock_open()\ndo while (penstock_next())\n"
        "call penstock_send(0, 0d0)\nend do\nend program",
    }[language]
    command = shlex.split(command_of(language, text, tmp_path))
    memory = SharedMemory({}, {"u": ()})
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    theirs = (their_in, their_out, memory.descriptor)
    os.write(our_out, "".join(f"{line}\n" for line in (*memory.header, said)).encode())
    os.close(our_out)
    environment = os.environ | {DESCRIPTORS: " ".join(map(str, theirs))}
    ended = subprocess.run(command, pass_fds=theirs, env=environment, capture_output=True, timeout=60)
    os.close(their_in)
    os.close(their_out)
    with os.fdopen(our_in) as answers:
        last = answers.read().splitlines()[-1]
    assert ended.returncode == 1
    assert ended.stderr == b""  # no backtrace, and penstock says the reason
    assert last.startswith("fault ") and re.search(message, last)


def command_of(language, text, folder):
    """The command of a program's text, compiled if need be."""
    source = folder / f"program.{dict(python='py', c='c', fortran='f90')[language]}"
    source.write_text(text)
    if language == "python":
        return f"{sys.executable} {source}"
    compiler = {"c": "cc", "fortran": "gfortran"}[language]
    if not shutil.which(compiler):
        pytest.skip(f"there is no compiler {compiler!r}")
    module = [INCLUDE / "penstock.f90"] if language == "fortran" else []
    subprocess.run([compiler, f"-I{INCLUDE}", *module, source, "-o", folder / "program", "-lm"], check=True, cwd=folder)
    return str(folder / "program")


def test_a_fork_in_c_that_speaks_is_named(tmp_path):
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler `cc`")
    (tmp_path / "forks.c").write_text(
        '#include "penstock.h"\nint main(void) { penstock_open(); double *u = penstock_array("u", 1);\n'
        "while (penstock_next()) { *u = 1; if (fork()) sleep(20); penstock_send(0, 0); } }"
    )
    subprocess.run(["cc", f"-I{INCLUDE}", "forks.c", "-o", "forks"], check=True, cwd=tmp_path)
    problem = External(command=str(tmp_path / "forks"), spec={"outputs": {"u": {}}})
    with pytest.raises(Misfit, match=r"process \d+ was forked from \d+"):
        list(problem.simulate({}, None))


def test_a_choice_of_names_is_given_as_its_place_in_the_spec(tried):
    """Also where a configuration leaves fewer of them."""
    text = """
from penstock.solvers.external.client import Program
program = Program()
for parameters in program:
    program.send(step=0, u=float(parameters["scheme"]))
"""
    schemes = {"scheme": {"law": "discrete", "values": ["upwind", "central", "weno"]}}
    problem = tried(text, parameters=schemes, inputs={"scheme": {}}, outputs={"u": {}}).problem
    problem.space = problem.space.narrowed({"scheme": ["central", "weno"]})
    for scheme, place in (("central", 1), ("weno", 2)):
        (sample,) = problem.simulate({"scheme": scheme}, None)
        assert sample.inputs["scheme"] == sample.outputs["u"] == place
    problem.space = problem.space.narrowed({"scheme": "weno"})
    (sample,) = problem.simulate(problem.draw(generator_of(0, "training", 0)), None)
    assert sample.outputs["u"] == 2


def test_a_program_takes_and_gives_fields_on_a_mesh(tried, tmp_path):
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    np.savez(tmp_path / "plate.npz", points=points, cells=np.array([[0, 1, 2], [0, 2, 3]]))
    text = """
import numpy as np
from penstock.solvers.external.client import Program
program = Program()
points = np.load("plate.npz")["points"]
for parameters in program:
    program.send(step=0, u=points.T * parameters["load"])
"""
    problem = tried(
        text,
        parameters={"load": {"law": "matern_field", "mesh": "plate", "inverse_length": 0.5}},
        geometries={"plate": {"kind": "mesh", "file": str(tmp_path / "plate.npz")}},
        inputs={"load": {"geometry": "plate"}},
        outputs={"u": {"geometry": "plate", "components": 2}},
    ).problem
    parameters = problem.draw(generator_of(0, "training", 0))
    (sample,) = problem.simulate(parameters, None)
    np.testing.assert_array_equal(sample.inputs["load"], parameters["load"])
    np.testing.assert_array_equal(sample.outputs["u"], points.T * parameters["load"])
    assert problem.layout.pack([sample])["targets"].shape == (1, 2, 4)
