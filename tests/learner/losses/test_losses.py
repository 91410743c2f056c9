"""Losses against NumPy, analytic Sobolev norms, and finite elements made with SciPy."""

import functools
import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import torch

from penstock.errors import PenstockError
from penstock.geometry import Grid, Mesh
from penstock.layout import FieldSpec, Layout
from penstock.learner.losses.losses import H1, LOSSES, MSE, RelativeL2, Sobolev, TotalLoss
from penstock.learner.losses.norms import MAX_DENSE_POINTS, GridNorm, MeshNorm, mark_constants
from penstock.learner.losses.transforms import LARGEST_MATRIX
from penstock.learner.normalization import Normalization
from penstock.registry import build

ORDERS = (-1, -0.5, 0, 0.5, 1, 2)

EVERY_LOSS = {
    "relative_l2": RelativeL2,
    "mse": MSE,
    "h1": H1,
    "of order -1": functools.partial(Sobolev, order=-1),
    "of order 1.5, absolute": functools.partial(Sobolev, order=1.5, relative=False),
    "of order 1, periodic": lambda grid: Sobolev(Grid(grid.shape, periodic=True), order=1),
    "of order 1, at vertices": lambda grid: Sobolev(Grid(grid.shape, centring="vertices"), order=1),
    "mse, at vertices": lambda grid: MSE(Grid(grid.shape, centring="vertices")),
}


def cell_centres(*grid):
    return torch.meshgrid(*(((torch.arange(n, dtype=torch.float64) + 0.5) / n) for n in grid), indexing="ij")


def norm(values, order, mesh=None, **options):
    """||values||_order of one field on a grid with these options, or on a mesh."""
    loss = Sobolev(mesh or Grid(values.shape, **options), order=order, relative=False)
    return loss(values[None, None], torch.zeros_like(values)[None, None]).sqrt().item()


# On grids


def test_relative_l2_and_mse_are_those_of_numpy():
    random = np.random.default_rng(0)
    prediction, target = random.normal(size=(2, 5, 3, 8, 9)).astype(np.float32)
    errors = [np.linalg.norm(p - t) / np.linalg.norm(t) for p, t in zip(prediction, target, strict=True)]
    grid = Grid((8, 9))
    np.testing.assert_allclose(RelativeL2(grid)(torch.tensor(prediction), torch.tensor(target)), errors, rtol=1e-5)
    squares = ((prediction - target) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(MSE(grid)(torch.tensor(prediction), torch.tensor(target)), squares, rtol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", [(9,), (16, 12), (8, 7, 6), (LARGEST_MATRIX + 1,), (6, LARGEST_MATRIX + 2)])
def test_the_norm_of_cosines_is_the_analytic_one(grid, order):
    # sum of c cos(π m·x) products: a mean square of c²/2 for every axis on which m is not 0
    terms = {(0, 0, 0): 1.5, (1, 0, 2): -0.7, (3, 2, 1): 0.4, (5, 1, 0): 0.9}
    centres = cell_centres(*grid)
    values, expected = torch.zeros(grid, dtype=torch.float64), {}
    for numbers, factor in terms.items():
        numbers = numbers[: len(grid)]
        values += factor * math.prod(torch.cos(math.pi * m * x) for m, x in zip(numbers, centres, strict=True))
        expected[numbers] = expected.get(numbers, 0) + factor
    squared = sum(
        factor**2 * 0.5 ** sum(m > 0 for m in numbers) * (1 + math.pi**2 * sum(m * m for m in numbers)) ** order
        for numbers, factor in expected.items()
    )
    assert norm(values, order) == pytest.approx(math.sqrt(squared), rel=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", [(16, 11), (10, 8), (LARGEST_MATRIX + 1, 3), (4, LARGEST_MATRIX + 2)])
def test_the_norm_of_a_periodic_field_is_that_of_numpys_fft(grid, order):
    values = np.random.default_rng(0).normal(size=grid)
    wave_numbers = np.meshgrid(*(2 * np.pi * np.fft.fftfreq(n, 1 / n) for n in grid), indexing="ij")
    spectrum = np.abs(np.fft.fftn(values, norm="forward")) ** 2
    expected = np.sqrt(((1 + sum(k**2 for k in wave_numbers)) ** order * spectrum).sum())
    assert norm(torch.tensor(values), order, periodic=True) == pytest.approx(expected, rel=1e-12)


EXTENTS = [(1.0,), (0.02,), (2.0, 0.5), (1000.0, 3.0), (0.1, 7.0, 1.0)]


@pytest.mark.parametrize("extent", EXTENTS)
def test_the_h1_norm_on_a_box_is_the_integral_of_values_and_gradients(extent):
    """A product of u(x) = 3 s² - 2 s³, s = x / L: over [0, L] the mean of u² is 13/35 and that of u'² 6/5 / L²."""
    values, mean, slope = torch.ones(()), 13 / 35, 6 / 5
    for s in cell_centres(*(48,) * len(extent)):
        values = values * (3 * s**2 - 2 * s**3)
    axes = len(extent)
    exact = mean**axes + sum(slope / length**2 * mean ** (axes - 1) for length in extent)
    assert norm(values, 1, extent=extent) ** 2 == pytest.approx(exact, rel=2e-3)  # of second order in 1/48


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("extent", EXTENTS)
@pytest.mark.parametrize("periodic", [False, True])
def test_a_wave_on_a_box_has_the_wave_numbers_of_its_lengths(extent, order, periodic):
    """√2 cos(π m x / L) in the last axis, and twice the wave number where it is periodic."""
    s = cell_centres(*(12,) * len(extent))[-1]
    k = (2 if periodic else 1) * math.pi * 2 / extent[-1]
    values = math.sqrt(2) * torch.cos(k * extent[-1] * s)
    assert norm(values, order, periodic=periodic, extent=extent) == pytest.approx((1 + k**2) ** (order / 2), rel=1e-12)


def test_the_h1_norm_is_that_of_the_gradient_whatever_the_boundary_values():
    # u = exp(x) sin(2y) + y: ∫u² + |∇u|² by Gauss' quadrature; neither periodic nor flat at the boundary
    nodes, weights = np.polynomial.legendre.leggauss(30)
    x, y = np.meshgrid((nodes + 1) / 2, (nodes + 1) / 2, indexing="ij")
    u = np.exp(x) * np.sin(2 * y) + y
    gradient = np.exp(x) * np.sin(2 * y), 2 * np.exp(x) * np.cos(2 * y) + 1
    exact = np.sqrt(weights / 2 @ (u**2 + gradient[0] ** 2 + gradient[1] ** 2) @ weights / 2)
    errors = []
    for n in (32, 64, 128):
        x, y = cell_centres(n, n)
        errors.append(abs(norm(torch.exp(x) * torch.sin(2 * y) + y, 1) - exact) / exact)
    assert errors[-1] < 0.005
    assert all(coarse / fine > 1.9 for coarse, fine in itertools.pairwise(errors))  # first order in h


def test_a_relative_loss_of_order_0_is_relative_l2_and_an_absolute_one_mse():
    prediction, target = torch.randn(2, 5, 3, 8, 9)
    for centring in ("cells", "vertices"):
        grid = Grid((8, 9), centring=centring)
        relative, absolute = RelativeL2(grid)(prediction, target), MSE(grid)(prediction, target)
        torch.testing.assert_close(Sobolev(grid, order=0)(prediction, target), relative)
        torch.testing.assert_close(Sobolev(grid, order=0, relative=False)(prediction, target), absolute)
        # and so in the limit, which goes through the transform
        torch.testing.assert_close(Sobolev(grid, order=1e-9)(prediction, target), relative)


def test_a_relative_loss_is_the_quotient_of_norms_over_all_channels():
    x, y = cell_centres(16, 16)
    target = torch.stack([torch.cos(math.pi * x), 3 * torch.cos(2 * math.pi * y)])[None]
    error = torch.stack([torch.zeros_like(x), 0.1 * torch.cos(math.pi * x)])[None]
    for order in ORDERS:
        one, two = (1 + math.pi**2) ** order, (1 + 4 * math.pi**2) ** order
        expected = 0.1 * math.sqrt(one) / math.sqrt(one + 9 * two)
        assert Sobolev(Grid((16, 16)), order=order)(target + error, target).item() == pytest.approx(expected, rel=1e-10)


def test_a_positive_order_punishes_high_frequencies_and_a_negative_one_low():
    (x,) = cell_centres(64)
    target = torch.cos(math.pi * x)[None, None]
    low, high = (0.1 * torch.cos(math.pi * m * x)[None, None] for m in (1, 20))
    for order, factor in ((1, 1), (-1, -1)):
        loss = Sobolev(Grid((64,)), order=order)
        quotient = loss(target + high, target) / loss(target + low, target)
        assert quotient.item() == pytest.approx(((1 + 400 * math.pi**2) / (1 + math.pi**2)) ** (factor / 2))


@pytest.mark.parametrize("make", EVERY_LOSS.values(), ids=EVERY_LOSS)
def test_gradients_are_those_of_finite_differences(make):
    torch.manual_seed(0)
    loss = make(Grid((5, 4)))
    prediction, target = torch.randn(2, 2, 2, 5, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: loss(p, target), prediction.requires_grad_())


def test_an_axis_of_a_million_points_takes_no_matrix():
    x = (torch.arange(10**6) + 0.5) / 10**6
    target = torch.cos(3 * math.pi * x)[None, None].requires_grad_()
    loss = H1(Grid((10**6,)), relative=False)(target, torch.zeros_like(target))
    assert loss.item() == pytest.approx((1 + 9 * math.pi**2) / 2, rel=1e-2)  # float32's rounding has steep gradients
    loss.sum().backward()
    assert target.grad.isfinite().all()


@pytest.mark.parametrize("periodic", [False, True])
def test_gradients_through_the_fft_are_those_of_finite_differences(periodic):
    loss = Sobolev(Grid((2, LARGEST_MATRIX + 1), periodic=periodic), order=1)
    target = torch.randn(1, 1, 2, LARGEST_MATRIX + 1, dtype=torch.float64)
    prediction = (target + torch.randn_like(target)).requires_grad_()
    assert torch.autograd.gradcheck(loss, (prediction, target), fast_mode=True)


@pytest.mark.parametrize("make", EVERY_LOSS.values(), ids=EVERY_LOSS)
def test_losses_have_finite_gradients_at_a_perfect_prediction_and_a_zero_target(make):
    prediction = torch.zeros(2, 1, 4, 4, requires_grad=True)
    make(Grid((4, 4)))(prediction, torch.zeros(2, 1, 4, 4)).mean().backward()
    assert prediction.grad.isfinite().all()


@pytest.mark.parametrize("make", EVERY_LOSS.values(), ids=EVERY_LOSS)
def test_losses_stay_float32_under_autocast(make):
    for grid in ((32, 32), (16, 8), (12,)):
        loss, (prediction, target) = make(Grid(grid)), torch.randn(2, 3, 1, *grid)
        expected = loss(prediction.double(), target.double())
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(prediction, target)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected, rtol=2e-5, atol=0)


def test_a_compiled_loss_is_the_same_and_is_compiled_once():
    prediction, target = torch.randn(2, 3, 1, 8, 8)
    loss, graphs = H1(Grid((8, 8))), []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    mark_constants()
    compiled = torch.compile(lambda p, t: loss(p, t).sum(), backend=backend, fullgraph=True, dynamic=False)
    for _ in range(3):
        value = compiled(prediction, target)
    torch.testing.assert_close(value, loss(prediction, target).sum())
    assert len(graphs) == 1


@pytest.mark.parametrize("loss", [MSE, RelativeL2])
def test_outputs_count_by_their_weights(loss):
    """Two fields and a scalar with deviations 2, 1, 4: the errors' squares in stds, written out in NumPy."""
    grid = Grid((3, 4))
    outputs = FieldSpec(name="u", on=grid), FieldSpec(name="p", on=grid), FieldSpec(name="drag")
    layout = Layout((FieldSpec(name="a"),), outputs)
    random = np.random.default_rng(0)
    shapes = {"targets": (5, 2, 3, 4), "target_scalars": (5, 1)}
    # targets far from 0, by which relative errors are never divided
    prediction, target = ({name: random.normal(8, size=shape) for name, shape in shapes.items()} for _ in range(2))
    std = {"targets": np.array([2.0, 1.0]), "target_scalars": np.array([4.0])}
    normalization = Normalization(
        {"scalars": torch.zeros(1), **{name: torch.zeros(len(each)) for name, each in std.items()}},
        {"scalars": torch.ones(1), **{name: torch.tensor(each, dtype=torch.float32) for name, each in std.items()}},
    )
    weights = np.array([6.0, 2.0]), np.array([0.5])
    expected = 0.0
    for (name, each), weight in zip(std.items(), weights, strict=True):
        scale = each.reshape(-1, *[1] * (target[name].ndim - 2))
        over_points = tuple(range(2, target[name].ndim))
        error = ((prediction[name] - target[name] / scale) ** 2).mean(axis=over_points) @ weight / weight.sum()
        norm = ((target[name] / scale) ** 2).mean(axis=over_points) @ weight / weight.sum()
        expected += weight.sum() / 8.5 * (error if loss is MSE else np.sqrt(error / norm))
    tensors = [
        {name: torch.tensor(a, dtype=torch.float32) for name, a in each.items()} for each in (prediction, target)
    ]
    result = TotalLoss(layout, loss, {"u": 6.0, "p": 2.0, "drag": 0.5})(*tensors, normalization)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_weights_of_no_output_are_refused():
    layout = Layout((FieldSpec(name="a"),), (FieldSpec(name="drag"),))
    with pytest.raises(ValueError, match=r"no output is called 'darg'; did you mean 'drag'\?"):
        TotalLoss(layout, MSE, {"darg": 1.0})
    with pytest.raises(ValueError, match="the weight of drag must be above 0, not 0"):
        TotalLoss(layout, MSE, {"drag": 0.0})


def test_losses_are_built_from_a_configuration_and_name_the_option_that_is_wrong():
    grid = Grid((8, 8), periodic=True)
    loss = build(LOSSES["sobolev"], {"order": -1, "relative": False}, "training.loss", grid)
    assert isinstance(loss.norm, GridNorm) and loss.norm.order == -1 and not loss.relative
    assert build(LOSSES["h1"], {}, "training.loss", grid).norm.order == 1
    for name, options, complaint in (
        ("sobolev", {"order": "one"}, r"training\.loss\.order = 'one': must be a number"),
        ("sobolev", {"order": math.nan}, "order must be finite, not nan"),
        ("sobolev", {}, "order"),
        ("mse", {"order": 1}, r"training\.loss\.order: unknown key"),
        ("h1", {"relative": 1}, r"training\.loss\.relative = 1: must be true or false"),
    ):
        with pytest.raises(PenstockError, match=complaint):
            build(LOSSES[name], options, "training.loss", grid)


# On meshes


def interval(num_cells):
    """P1 on [0, 1] with cells that grow towards the right."""
    points = np.linspace(0, 1, num_cells + 1)[:, None] ** 1.3
    cells = np.stack([np.arange(num_cells), np.arange(1, num_cells + 1)], axis=1)
    return Mesh(num_cells + 1, 1, lambda: (points, cells))


def triangulation(num_cells):
    """P1 on the unit square, a smoothly distorted grid of squares cut into triangles."""
    axis = np.linspace(0, 1, num_cells + 1)
    x, y = (coordinates.ravel() for coordinates in np.meshgrid(axis, axis, indexing="ij"))
    distorted_x = x + 0.08 * np.sin(np.pi * x) * np.cos(2 * np.pi * y) + 0.05 * np.sin(2 * np.pi * x)
    points = np.stack([distorted_x, y + 0.08 * np.sin(np.pi * y) * np.cos(np.pi * x)], axis=1)
    corner = (np.arange(num_cells)[:, None] * (num_cells + 1) + np.arange(num_cells)).ravel()
    lower = np.stack([corner, corner + num_cells + 1, corner + num_cells + 2], axis=1)
    upper = np.stack([corner, corner + num_cells + 2, corner + 1], axis=1)
    return Mesh(len(points), 2, lambda: (points, np.concatenate([lower, upper])))


def matrices(mesh):
    """Lumped mass and stiffness, dense, by other formulas than the code's: lengths, and edges opposite to corners."""
    points, cells = mesh.build()
    if mesh.dimension == 1:
        sizes = np.diff(points[cells, 0], axis=1)[:, 0]
        local = np.array([[1, -1], [-1, 1]]) / sizes[:, None, None]
    else:
        a, b, c = (points[cells[:, i]] for i in range(3))
        edges = np.stack([c - b, a - c, b - a], axis=1)
        sizes = 0.5 * np.abs(np.linalg.det(edges[:, :2]))
        local = np.einsum("tix,tjx->tij", edges, edges) / (4 * sizes[:, None, None])
    corners = cells.shape[1]
    rows, columns = np.broadcast_arrays(cells[:, :, None], cells[:, None, :])
    stiffness = scipy.sparse.coo_array((local.ravel(), (rows.ravel(), columns.ravel()))).toarray()
    return np.diag(np.bincount(cells.ravel(), np.repeat(sizes / corners, corners))), stiffness


MESHES = {"interval": interval, "triangulation": triangulation}


def cosine_sum(points):
    """0.3 + 0.5 cos(πx) [- 0.3 cos(2πx) cos(πy)] and its squared coefficients by |k|²/π²."""
    values = 0.3 + 0.5 * np.cos(np.pi * points[:, 0])
    squares = {0: 0.3**2, 1: 0.5**2 / 2}
    if points.shape[1] == 2:
        values -= 0.3 * np.cos(2 * np.pi * points[:, 0]) * np.cos(np.pi * points[:, 1])
        squares[5] = 0.3**2 / 4
    return values, squares


@pytest.mark.parametrize("order", [*ORDERS, -2])
@pytest.mark.parametrize("make", MESHES.values(), ids=MESHES)
def test_the_norm_on_a_mesh_converges_to_the_analytic_one_with_order_two(make, order):
    errors = []
    for num_cells in (8, 16, 32):
        mesh = make(num_cells)
        values, squares = cosine_sum(mesh.arrays.points)
        exact = math.sqrt(sum(square * (1 + math.pi**2 * k) ** order for k, square in squares.items()))
        errors.append(abs(norm(torch.tensor(values), order, mesh) - exact) / exact)
    assert errors[-1] < 0.003
    assert errors[0] / errors[-1] > 14  # 16 in the limit


@pytest.mark.parametrize("order", [-1.5, 0.5, 1, 2, 3])
@pytest.mark.parametrize("make", MESHES.values(), ids=MESHES)
def test_the_norm_on_a_mesh_is_the_formula_in_dense_matrices(make, order):
    mesh = make(6)
    mass, stiffness = matrices(mesh)
    values = np.random.default_rng(0).normal(size=mesh.num_points)
    operator = scipy.linalg.fractional_matrix_power(np.linalg.solve(mass, mass + stiffness), order).real
    expected = np.sqrt(values @ mass @ operator @ values / mass.sum())
    assert norm(torch.tensor(values), order, mesh) == pytest.approx(expected, rel=1e-8)


def test_l2_and_mse_on_a_mesh_are_those_of_numpy():
    random, mesh = np.random.default_rng(0), triangulation(5)
    weights = matrices(mesh)[0].diagonal()
    prediction, target = random.normal(size=(2, 5, 3, mesh.num_points))
    squares = ((prediction - target) ** 2 @ weights).sum(axis=1)
    relative = np.sqrt(squares / (target**2 @ weights).sum(axis=1))
    for loss, expected in zip((RelativeL2(mesh), MSE(mesh)), (relative, squares / weights.sum() / 3), strict=True):
        np.testing.assert_allclose(loss(torch.tensor(prediction), torch.tensor(target)), expected, rtol=1e-12)


@pytest.mark.parametrize("order", [-1, 0, 0.5, 1, 2])
def test_gradients_on_a_mesh_are_those_of_finite_differences(order):
    torch.manual_seed(0)
    mesh = triangulation(3)
    loss = Sobolev(mesh, order=order)
    prediction, target = torch.randn(2, 2, 2, mesh.num_points, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: loss(p, target), prediction.requires_grad_())
    value = loss(prediction.detach().float(), target.float())
    torch.testing.assert_close(value.double(), loss(prediction.detach(), target), rtol=1e-5, atol=0)


def test_a_compiled_loss_on_a_mesh_is_the_same_and_hides_its_sparse_matrix_from_the_compiler():
    mesh = triangulation(3)
    prediction, target = torch.randn(2, 3, 1, mesh.num_points)
    loss, seen = H1(mesh), []

    def backend(graph, inputs):
        seen.extend([*inputs, *graph.buffers()])
        return graph

    mark_constants()
    compiled = torch.compile(lambda p, t: loss(p, t).sum(), backend=backend, dynamic=False)
    torch.testing.assert_close(compiled(prediction, target), loss(prediction, target).sum())
    assert seen and all(tensor.layout == torch.strided for tensor in seen)  # inductor fails at any other


def test_a_mesh_that_does_not_fit_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"has weights of shape \(5,\), but the fields have \(2, 3\): give"):
        RelativeL2(interval(4))(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, 3))
    large = interval(MAX_DENSE_POINTS)
    with pytest.raises(ValueError, match=f"too much for {MAX_DENSE_POINTS + 1} points: take an order of 0, 1, 2"):
        MeshNorm(large, 0.5)
    constant = torch.ones(1, 1, MAX_DENSE_POINTS + 1, dtype=torch.float64)
    assert MeshNorm(large, 2).squared(constant).item() == pytest.approx(1)
