"""`penstock problems`: the list, and the card of one problem."""

import re
import subprocess
import sys
import time

import numpy as np
import pytest
from matplotlib import pyplot as plt
from typer.testing import CliRunner

from penstock.geometry import Mesh
from penstock.layout import FieldSpec, Layout
from penstock.orchestrator.cli.app import app
from penstock.orchestrator.cli.catalogue import listing, show
from penstock.orchestrator.cli.catalogue.show import show_problem
from penstock.orchestrator.views import card
from penstock.orchestrator.views.card import costs
from penstock.solvers.linear import LinearSolver
from penstock.solvers.measurement import measure
from penstock.solvers.problems import PROBLEMS
from penstock.solvers.problems.steady.darcy import Darcy
from penstock.solvers.problems.steady.poisson import Poisson
from tests.support.refusals import refusal


def test_every_problem_has_a_row_with_its_dimension_and_steps(capsys):
    listing.show_problems(measures=False)
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert rows.keys() >= PROBLEMS.keys()
    assert re.match(r"darcy +2 +a grid +steady +1 +Darcy flow on the unit square or cube", rows["darcy"])
    assert re.match(r"heat_l_shape +2 +a mesh +transient +\d+ ", rows["heat_l_shape"])
    assert re.match(r"burgers +1 +a grid +transient +1 ", rows["burgers"])
    assert re.match(r"bratu +2 +a grid +steady +20 ", rows["bratu"])  # its samples follow λ, not time
    assert re.match(r"external +- +- +- +- +A program in any language", rows["external"])


def test_the_list_is_what_the_bare_command_prints():
    listed = CliRunner().invoke(app, ["problems"])
    assert listed.exit_code == 0 and "penstock problems show NAME" in listed.output
    assert "Usage" in CliRunner().invoke(app, ["problems", "show", "--help"]).output


def test_the_list_imports_no_solver():
    code = (
        "import sys; from penstock.orchestrator.cli.catalogue.listing import show_problems;"
        "show_problems(measures=False);"
        "print(*sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"dolfinx", "petsc4py", "mpi4py", "torch", "ray", "matplotlib"} & set(answer)


def test_measured_rows_have_systems_and_seconds_and_a_failure_its_reason(capsys, monkeypatch):
    poisson = "penstock.solvers.problems.steady.poisson:Poisson"
    monkeypatch.setattr(listing, "PROBLEMS", {"poisson": poisson, "fails": f"{__name__}:Fails"})
    listing.show_problems(measures=True)
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("poisson"))
    seconds, unknowns = re.search(r" ([\d.e-]+) +([\d,]+) unknowns, SPD, 1 per simulation", row).groups()
    assert float(seconds) > 0 and unknowns == "3,969"  # the inner vertices of 64 x 64 cells
    assert "ZeroDivisionError" in printed


def test_a_row_is_printed_once_it_is_measured_and_stands_under_the_header(capsys, monkeypatch):
    printed = []

    def measured(cls):
        printed.append(capsys.readouterr().out)
        return "0.1", f"{cls.__name__} with a system"

    monkeypatch.setattr(listing, "_measured", measured)
    names = ["darcy", "heat_l_shape", "burgers"]
    monkeypatch.setattr(listing, "PROBLEMS", {name: PROBLEMS[name] for name in names})
    listing.show_problems(measures=True)
    printed.append(capsys.readouterr().out)
    first, *others = printed[1].splitlines()[-1], *printed[2:]
    assert not printed[0] and first.startswith("darcy")
    assert [row.split()[0] for row in others] == names[1:]
    header = printed[1].splitlines()
    at = next(line.index("systems") for line in header if "systems" in line)
    rows = [first, *(row.splitlines()[0] for row in others)]
    assert {re.search(r"\w+ with a system", row).start() for row in rows} == {at}


class Fails(Poisson):
    """A problem that can't be solved."""

    def simulate(self, parameters, solve):
        yield 1 / 0


def test_the_seconds_of_activities_are_those_of_the_wall_clock(monkeypatch):
    """A solver that sleeps for 20 ms, and a draw that sleeps for 10."""
    solve, draw = LinearSolver.__call__, Poisson.draw
    monkeypatch.setattr(LinearSolver, "__call__", lambda self, system: time.sleep(0.02) or solve(self, system))
    monkeypatch.setattr(Poisson, "draw", lambda self, generator: time.sleep(0.01) or draw(self, generator))
    start = time.perf_counter()
    measured = measure(Poisson(resolution=8), 4)
    elapsed = time.perf_counter() - start
    assert measured.seconds["solve"] > 0.02 and measured.seconds["draw"] > 0.01
    assert min(measured.seconds.values()) > 0
    total = measured.first_seconds + 3 * sum(measured.seconds.values())
    assert 0.9 * elapsed < total < elapsed
    (systems,) = measured.systems.values()
    assert (systems.count, systems.is_spd, systems.is_symmetric) == (4, True, True)


def test_a_card_has_equation_laws_fields_systems_and_costs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    show_problem("darcy", ("dimension=3", "resolution=6"), None)
    printed = capsys.readouterr().out
    assert "-∇·(a ∇u) = f" in printed and "arXiv 2010.08895" in printed
    assert "options: resolution=6, dimension=3, medium=two_phase, above=12.0, below=3.0" in printed
    assert re.search(r"coefficient: .*12", printed)
    assert re.search(r"output +solution +6 x 6 x 6 +1 +a grid", printed)
    assert re.search(r"^    125 unknowns, SPD, 1 per simulation$", printed, re.M)
    shares = re.search(r"draw (\d+) %, assembly (\d+) %, solve (\d+) %, pack (\d+) %", printed)
    assert 98 <= sum(map(int, shares.groups())) <= 102
    assert (tmp_path / "darcy.png").stat().st_size > 5000


def test_the_card_says_what_a_derivative_costs_against_a_solve():
    """Where systems share a matrix: 3 of 4 per simulation here, and none without derivatives."""
    measured = measure(Darcy(resolution=6, medium="log_normal", derivatives=3), 4)
    systems = measured.systems["darcy"]
    assert (systems.count, len(systems.kept_seconds), len(systems.new_seconds)) == (16, 12, 3)
    printed = "\n".join(costs(measured))
    assert re.search(r"^    darcy: a further right-hand side of a matrix takes \d+ % of the first one's", printed, re.M)
    systems.kept_seconds, systems.new_seconds = [1.0] * 11 + [1000.0], [0.5, 900.0, 4.0]
    assert systems.kept_share == 1 / 4
    assert measure(Darcy(resolution=6), 2).systems["darcy"].kept_share is None


def test_the_picture_shows_the_first_and_last_sample_of_a_draw(tmp_path, monkeypatch):
    """The last state of a draw has decayed to less than the first, by the maximum principle."""
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    monkeypatch.setattr(show, "NUM_DRAWS", 2)
    show_problem("burgers", ("resolution=64", "num_steps=3"), tmp_path / "flow.png")
    monkeypatch.undo()
    panels = np.reshape([axis for axis in figures[0].axes if axis.get_title()], (4, 2))
    ends = [np.ptp(row[-1].lines[0].get_ydata()) for row in panels]
    assert all(last < first for first, last in zip(ends[::2], ends[1::2], strict=True))
    plt.close(figures[0])


def test_points_that_vary_are_drawn_and_a_file_of_ones_own_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from penstock.solvers.problems.steady.poisson import Poisson\n\n\n"
        "class Mine(Poisson):\n    '''A problem of mine.'''\n"
    )
    show_problem("./mine.py:Mine", ("resolution=8",), None)
    assert "A problem of mine." in capsys.readouterr().out and (tmp_path / "Mine.png").exists()


def test_a_program_of_another_language_says_its_equation_and_what_it_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "decay.py").write_text(
        "import numpy as np\nfrom penstock.solvers.external.client import Program\nprogram = Program()\n"
        "for parameters in program:\n    program.send(step=0, u=np.exp(-parameters['k']))\n"
    )
    (tmp_path / "decay.yaml").write_text(
        "about: u' = -k u\nparameters: {k: {law: normal}}\ninputs: {k: {}}\noutputs: {u: {}}\n"
    )
    show_problem("external", (f"command={sys.executable} decay.py", "spec=decay.yaml"), None)
    printed = capsys.readouterr().out
    assert printed.startswith("u' = -k u\n\noptions: ")
    assert re.search(r"draw \d+ %, program \d+ %, solve 0 %, pack \d+ %", printed)


@pytest.mark.parametrize(("name", "needs"), [("external", "command=... spec=..."), ("store", "path=...")])
def test_a_problem_that_needs_options_is_described_without(tmp_path, monkeypatch, capsys, name, needs):
    monkeypatch.chdir(tmp_path)
    show_problem(name, (), None)
    printed = capsys.readouterr().out
    assert "Args:" in printed and printed.endswith(f"penstock problems show {name} {needs}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("darcey", (), "there is no 'darcey'; did you mean 'darcy'?"),
        ("darcy", ("resolutoin=3",), "problem.resolutoin: unknown key; did you mean 'resolution'?"),
        ("darcy", ("resolution=1",), "resolution = 1 is too small"),
        ("darcy", ("resolution",), "an override reads key=value"),
        ("external", ("command=./heat",), "problem.spec: missing"),
        ("external", ("command=./heat", "spec={outputs: {u: {}}}"), "problem.command: ./heat: no such file: build it"),
        ("poisson", ("resolution=8",), "none/picture.png: there is no such folder"),
    ],
)
def test_what_can_t_be_shown_is_refused_in_one_line(tmp_path, name, options, complaint):
    assert complaint in refusal(show_problem, name, options, tmp_path / "none" / "picture.png")


def test_a_geometry_is_described_once_with_few_digits():
    """A quarter of a ring, whose corner is at 6e-17."""
    angle = np.pi / 2 * np.arange(2)
    points = np.concatenate([r * np.stack([np.cos(angle), np.sin(angle)], axis=1) for r in (1, 4 / 3)])
    mesh = Mesh(4, 2, lambda: (points, np.array([[0, 2, 1], [1, 2, 3]])))
    layout = Layout((FieldSpec(name="k", on=mesh),), (FieldSpec(name="u", on=mesh, unit="K"), FieldSpec(name="drag")))
    console = card.console()
    with console.capture() as captured:
        console.print(card.fields_table(layout))
    rows = [line.split() for line in captured.get().splitlines()[2:]]
    assert " ".join(rows[0]).endswith("a mesh: points 4, cells 2, box [[0, 0], [1.33, 1.33]]")
    assert rows[1][-2:] == ["a", "mesh"] and rows[2][-2:] == ["a", "scalar"]
