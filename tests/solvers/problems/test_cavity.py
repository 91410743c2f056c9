"""The classical cavity against published tables, Kovasznay's flow, the law of the lid."""

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from penstock.solvers.linear import LinearSolver
from penstock.solvers.linear.direct.direct import Direct
from penstock.solvers.parameters.space import generator_of
from penstock.solvers.problem import SolveError
from penstock.solvers.problems.flow.cavity import Cavity
from tests.support.systems import to_scipy

REYNOLDS = (100, 400, 1000)

# Ghia, Ghia and Shin (1982): y and u at these Re, x and v. Their v at x = 0.9063 and Re = 400 is a misprint: left out.
GHIA_U = """
    .0547 -.03717 -.08186 -.18109  .0625 -.04192 -.09266 -.20196  .0703 -.04775 -.10338 -.22220
    .1016 -.06434 -.14612 -.29730  .1719 -.10150 -.24299 -.38289  .2813 -.15662 -.32726 -.27805
    .4531 -.21090 -.17119 -.10648  .5    -.20581 -.11477 -.06080  .6172 -.13641  .02135  .05702
    .7344  .00332  .16256  .18719  .8516  .23151  .29093  .33304  .9531  .68717  .55892  .46604
    .9609  .73722  .61756  .51117  .9688  .78871  .68439  .57492  .9766  .84123  .75837  .65928"""
GHIA_V = """
    .0625  .09233  .18360  .27485  .0703  .10091  .19713  .29012  .0781  .10890  .20920  .30353
    .0938  .12317  .22965  .32627  .1563  .16077  .28124  .37095  .2266  .17507  .30203  .33075
    .2344  .17527  .30174  .32235  .5     .05454  .05186  .02526  .8047 -.24533 -.38598 -.31966
    .8594 -.22445 -.44993 -.42665  .9063 -.16914    nan   -.51550  .9453 -.10313 -.22847 -.39188
    .9531 -.08864 -.19254 -.33714  .9609 -.07391 -.15663 -.27669  .9688 -.05906 -.12146 -.21388"""


@pytest.fixture(scope="module")
def solve():
    return LinearSolver(Direct(solver="mumps"), rtol=1e-10)


@pytest.fixture(scope="module")
def classical(solve):
    """The centre lines u(0.5, y) and v(x, 0.5) as splines, by Reynolds number, under a lid of velocity 1.

    Its corners belong to the walls: u = 1 there would let fluid out.
    """
    problem = Cavity(resolution=48)
    unknowns, lines = problem.at_rest(np.r_[0, np.ones(95), 0]), {}
    for reynolds in REYNOLDS:
        unknowns = problem.flow.solve(unknowns, 1 / reynolds, solve, name="classical")
        (u, v), _ = problem.elements.parts(unknowns)
        x, y = problem.elements.nodes.T
        lines[reynolds] = []
        for along, across, values in ((y, x, u), (x, y, v)):
            on_line = np.flatnonzero(across == 0.5)
            on_line = on_line[np.argsort(along[on_line])]
            lines[reynolds].append(CubicSpline(along[on_line], values[on_line]))
    return lines


@pytest.mark.parametrize(
    ("reynolds", "extremes", "tolerance"),
    [(100, [-0.2140417, 0.1795728, -0.2538030], 1e-4), (1000, [-0.3885698, 0.3769447, -0.5270771], 3e-3)],
)
def test_extremes_on_the_centre_lines_are_those_published(classical, reynolds, extremes, tolerance):
    """u_min, v_max and v_min of Marchi, Suero and Araki (2009), and of Botella and Peyret (1998).

    On 64 x 64 squares those at Re = 1000 are met to 6e-4.
    """
    u, v = classical[reynolds]
    s = np.linspace(0, 1, 2001)
    assert [u(s).min(), v(s).max(), v(s).min()] == pytest.approx(extremes, abs=tolerance)


@pytest.mark.parametrize(("reynolds", "tolerance"), [*zip(REYNOLDS, (0.01, 0.01, 0.022), strict=True)])
def test_profiles_are_those_of_ghia(classical, reynolds, tolerance):
    """Ghia's values themselves are off by up to 0.006 in u and 0.019 in v, most at Re = 1000."""
    column = 1 + REYNOLDS.index(reynolds)
    for line, table in zip(classical[reynolds], (GHIA_U, GHIA_V), strict=True):
        places, values = np.array(table.split(), float).reshape(-1, 4).T[[0, column]]
        is_given = np.isfinite(values)
        np.testing.assert_allclose(line(places[is_given]), values[is_given], atol=tolerance)


def test_a_flow_of_kovasznay_is_met_with_orders_three_and_two(solve):
    """An exact solution behind a grid (Kovasznay 1948), here at Re = 40 on the unit square."""
    decay = 20 - np.sqrt(400 + 4 * np.pi**2)

    def exact(points):
        x, y = points.T
        growth, phase = np.exp(decay * x), 2 * np.pi * y
        u, v = 1 - growth * np.cos(phase), decay / (2 * np.pi) * growth * np.sin(phase)
        return np.stack([u, v]), -(growth**2) / 2

    errors = []
    for n in (8, 16):
        problem = Cavity(resolution=n)
        elements = problem.elements
        start = elements.state(exact(elements.nodes[elements.boundary])[0])
        velocity, pressure = elements.parts(problem.flow.solve(start, 1 / 40, solve, name="Kovasznay"))
        expected = exact(elements.nodes[elements.node_of_point])[1]
        difference = elements.at_points(velocity, pressure)[1] - expected
        errors.append([np.abs(velocity - exact(elements.nodes)[0]).max(), np.std(difference)])
    orders = np.log2(np.divide(*errors))
    assert (orders > [2.6, 1.8]).all()
    assert (errors[-1] < np.array([2e-3, 1e-2])).all()


def test_jacobian_is_the_derivative_of_the_residual():
    problem = Cavity(resolution=4)
    random = np.random.default_rng(0)
    u, change = random.standard_normal((2, len(problem.at_rest(np.zeros(9)))))
    change[problem.elements.fixed] = 0.0
    system = problem.flow.system(u)
    difference = (problem.flow.residual(u + 1e-4 * change) - problem.flow.residual(u - 1e-4 * change)) / 2e-4
    np.testing.assert_allclose(to_scipy(system.A) @ change, difference, atol=1e-8)


def test_lids_are_positive_with_mean_one_and_at_rest_in_the_corners():
    """ln f is that of the shape plus a field of standard deviation 1/2 plus a constant per draw."""
    profile = Cavity(resolution=16).space.distributions["lid"]
    lids = np.stack([profile.draw(generator_of(0, "x", i)) for i in range(400)])
    x = np.arange(33) / 32
    assert (lids[:, [0, -1]] == 0).all() and (lids[:, 1:-1] > 0).all()
    np.testing.assert_allclose(np.trapezoid(lids, x), 1, rtol=1e-12)
    logarithms = np.log(lids[:, 1:-1] / (4 * x * (1 - x))[1:-1] ** 2)
    assert np.sqrt(np.mean(np.var(logarithms - logarithms.mean(axis=1, keepdims=True), axis=0))) == pytest.approx(
        0.5, rel=0.1
    )


def test_levels_double_the_reynolds_number_and_samples_pack(solve):
    problem = Cavity(resolution=8, num_levels=3, largest_reynolds=200.0)
    parameters = problem.draw(generator_of(0, "training", 0))
    assert 100 <= parameters["reynolds"] <= 200
    samples = list(problem.simulate(parameters, solve))
    arrays = problem.layout.pack(samples)
    np.testing.assert_allclose(arrays["scalars"][:, 0], parameters["reynolds"] * np.array([0.25, 0.5, 1]), rtol=1e-6)
    assert arrays["targets"].shape == (3, 3, 9, 9)
    np.testing.assert_allclose(arrays["targets"][2, 0, :, -1], parameters["lid"][::2], rtol=1e-6)
    assert not arrays["targets"][:, :2, [0, -1]].any()


def test_a_flow_that_newtons_method_does_not_find_is_refused(solve):
    problem = Cavity(resolution=4, num_levels=1, largest_reynolds=1e9)
    with pytest.raises(SolveError):
        list(problem.simulate(problem.draw(generator_of(0, "training", 0)), solve))


@pytest.mark.parametrize("options", [{"resolution": 3}, {"num_levels": 0}, {"largest_reynolds": 0.0}])
def test_bad_options_are_refused(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        Cavity(**options)
