"""Norms and losses on vertices, points, masked grids and scalars, against integrals, SciPy's DCT and NumPy."""

import functools
import itertools
import math

import numpy as np
import pytest
import scipy.fft
import torch

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.losses.losses import H1, LOSSES, MSE, RelativeL2, Sobolev, TotalLoss
from penstock.learner.losses.norms import has_gradients, norm_of
from penstock.learner.losses.transforms import LARGEST_MATRIX
from penstock.learner.normalization import Normalization

ORDERS = (-1, -0.5, 0, 0.5, 1, 2)
CLOUD, MASKED = Points(9, 2), Grid((3, 4), is_masked=True)
TRIANGLES = Mesh(
    4, 2, lambda: (np.array([[0.0, 0], [2, 0], [2, 1], [0, 1]]), np.array([[0, 1, 2], [0, 2, 3]])), name="body"
)


def norm(grid, order, values):
    return norm_of(grid, order).squared(torch.tensor(values)[None, None]).sqrt().item()


def vertices(*sizes, extent=None, origin=None):
    return Grid(sizes, centring="vertices", extent=extent or (), origin=origin or ())


@pytest.mark.parametrize("sizes", [(2,), (17,), (9, 8), (2, 5, 6)])
@pytest.mark.parametrize("order", ORDERS)
def test_the_norm_on_vertices_is_that_of_scipys_dct_1(sizes, order):
    extent = (2.0, 0.5, 3.0)[: len(sizes)]
    values = np.random.default_rng(0).normal(size=sizes)
    coefficients = scipy.fft.dctn(values, type=1)  # twice the sum by the trapezoidal rule, for each axis
    squares, numbers = np.ones(sizes), np.zeros(sizes)
    for axis, (size, length) in enumerate(zip(sizes, extent, strict=True)):
        share = np.full(size, 2.0)  # the mean square of a cosine is 1/2, but of the first, and of the last at vertices
        share[[0, -1]] = 1
        along = [-1 if other == axis else 1 for other in range(len(sizes))]
        squares = squares * (share / (2 * (size - 1)) ** 2).reshape(along)
        numbers = numbers + (math.pi * np.arange(size).reshape(along) / length) ** 2
    expected = np.sqrt(((1 + numbers) ** order * squares * coefficients**2).sum())
    assert norm(vertices(*sizes, extent=extent), order, values) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("periodic", [(True, False), (False, True)])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("centring", ["cells", "vertices"])
def test_waves_of_a_grid_that_is_periodic_along_one_axis_have_their_wave_numbers(periodic, order, centring):
    """√2 cos(k x) √2 cos(m y): k, m are multiples of 2π / L along a periodic axis, of π / L along another."""
    extent = (3.0, 0.5)
    grid = Grid((12, 10), extent=extent, periodic=periodic, centring=centring)
    k, m = ((4 if repeats else 3) * math.pi / length for repeats, length in zip(periodic, extent, strict=True))
    x, y = np.meshgrid(*grid.axes(), indexing="ij")
    values = 2 * np.cos(k * x) * np.cos(m * y)
    assert norm(grid, order, values) == pytest.approx((1 + k**2 + m**2) ** (order / 2), rel=1e-12)


@pytest.mark.parametrize("origin", [(0.0, 0.0), (-3.0, 10.0)])
def test_norms_on_vertices_converge_to_the_integrals_with_the_orders_of_their_rules(origin):
    """u = (1 + x) y², x, y from the domain's corner on: not periodic, and not flat at the boundary."""
    width, height = 2.0, 0.5
    square = ((1 + width) ** 3 - 1) / 3 * height**5 / 5 / (width * height)
    gradient = (width * height**5 / 5 + ((1 + width) ** 3 - 1) / 3 * 4 * height**3 / 3) / (width * height)
    l2_errors, h1_errors = [], []
    for n in (16, 32, 64):
        grid = vertices(n + 1, n + 1, extent=(width, height), origin=origin)
        x, y = np.meshgrid(*(axis - start for axis, start in zip(grid.axes(), origin, strict=True)), indexing="ij")
        u = (1 + x) * y**2
        l2_errors.append(abs(norm(grid, 0, u) / math.sqrt(square) - 1))
        h1_errors.append(abs(norm(grid, 1, u) / math.sqrt(square + gradient) - 1))
    assert l2_errors[-1] < 1e-3 and all(a / b > 3.9 for a, b in itertools.pairwise(l2_errors))
    assert h1_errors[-1] < 0.02 and all(a / b > 1.9 for a, b in itertools.pairwise(h1_errors))


def test_more_vertices_than_a_matrix_is_made_for_elsewhere_have_the_norm_of_a_wave():
    n = LARGEST_MATRIX + 2
    values = math.sqrt(2) * np.cos(3 * np.pi * np.linspace(0, 1, n))
    assert norm(vertices(n), 1, values) == pytest.approx(math.sqrt(1 + 9 * np.pi**2), rel=1e-10)


@pytest.mark.parametrize("centring", ["cells", "vertices"])
def test_l2_on_a_grid_is_numpys_trapezoidal_rule_or_mean(centring):
    grid = Grid((7, 5), centring=centring, extent=(3.0, 1.0))
    prediction, target = np.random.default_rng(0).normal(size=(2, 6, 2, 7, 5))

    def mean(squares):
        if centring == "cells":
            return squares.mean(axis=(2, 3)).mean(axis=1)
        x, y = grid.axes()
        return (np.trapezoid(np.trapezoid(squares, y), x) / 3.0).mean(axis=1)

    tensors = torch.tensor(prediction), torch.tensor(target)
    np.testing.assert_allclose(MSE(grid)(*tensors), mean((prediction - target) ** 2), rtol=1e-12)
    expected = np.sqrt(mean((prediction - target) ** 2) / mean(target**2))
    np.testing.assert_allclose(RelativeL2(grid)(*tensors), expected, rtol=1e-12)


def weights_with_padding(geometry, num_samples, seed=0):
    """[N, 1, *], 0 somewhere; of points at the end, of a grid anywhere."""
    random = np.random.default_rng(seed)
    weights = random.uniform(0.1, 2, size=(num_samples, 1, *geometry.shape))
    if isinstance(geometry, Points):
        return weights * (np.arange(geometry.max_points) < random.integers(1, 10, size=(num_samples, 1, 1)))
    weights[..., 0, 0] = 1
    weights[..., 1, :] *= random.integers(0, 2, size=(num_samples, 1, geometry.shape[1]))
    return weights


@pytest.mark.parametrize("geometry", [CLOUD, MASKED], ids=["points", "mask"])
def test_weights_that_travel_are_those_of_numpy_sample_by_sample(geometry):
    weights = weights_with_padding(geometry, 5)
    prediction, target = np.random.default_rng(1).normal(size=(2, 5, 3, *geometry.shape))
    tensors = torch.tensor(prediction), torch.tensor(target)
    expected, relative = [], []
    for p, t, w in zip(prediction, target, weights, strict=True):
        is_there = w[0] > 0
        share = w[0][is_there] / w[0][is_there].sum()
        expected.append(((p - t)[:, is_there] ** 2 @ share).mean())
        relative.append(math.sqrt(expected[-1] / (t[:, is_there] ** 2 @ share).mean()))
    options = {"weights": torch.tensor(weights)}
    np.testing.assert_allclose(MSE(geometry)(*tensors, **options), expected, rtol=1e-12)
    np.testing.assert_allclose(RelativeL2(geometry)(*tensors, **options), relative, rtol=1e-12)
    with torch.autocast("cpu", torch.bfloat16):
        value = RelativeL2(geometry)(*(t.float() for t in tensors), weights=torch.tensor(weights).float())
    assert value.dtype == torch.float32
    np.testing.assert_allclose(value, relative, rtol=1e-5)


@pytest.mark.parametrize("make", [RelativeL2, MSE, functools.partial(Sobolev, order=0)])
@pytest.mark.parametrize("geometry", [CLOUD, MASKED], ids=["points", "mask"])
def test_what_lies_at_weight_0_changes_neither_value_nor_gradient(geometry, make):
    weights = torch.tensor(weights_with_padding(geometry, 4))
    target = torch.randn(4, 2, *geometry.shape, dtype=torch.float64)
    found = []
    for garbage in (0.0, 1e30, math.inf, math.nan):
        prediction = torch.where(weights > 0, target + torch.cos(target), garbage).requires_grad_()
        value = make(geometry)(prediction, torch.where(weights > 0, target, -garbage), weights=weights)
        value.sum().backward()
        assert not prediction.grad[(weights == 0).expand_as(target)].any() and prediction.grad.any()
        found.append((value.detach(), prediction.grad))
    for value, gradient in found[1:]:
        assert torch.equal(value, found[0][0]) and torch.equal(gradient, found[0][1])


@pytest.mark.parametrize("make", [RelativeL2, MSE])
def test_each_point_twice_with_half_the_weight_is_the_same_loss(make):
    weights = torch.tensor(weights_with_padding(CLOUD, 4))
    prediction, target = torch.randn(2, 4, 2, 9, dtype=torch.float64)
    once = make(CLOUD)(prediction, target, weights=weights)
    twice = (values.repeat(1, 1, 2) for values in (prediction, target))
    torch.testing.assert_close(make(Points(18, 2))(*twice, weights=weights.repeat(1, 1, 2) / 2), once)


def test_scalars_are_measured_in_their_values_whatever_the_order():
    prediction, target = np.random.default_rng(0).normal(size=(2, 5, 3))
    tensors = torch.tensor(prediction), torch.tensor(target)
    relative = np.linalg.norm(prediction - target, axis=1) / np.linalg.norm(target, axis=1)
    for make in (RelativeL2, H1, functools.partial(Sobolev, order=-1)):
        np.testing.assert_allclose(make(None)(*tensors), relative, rtol=1e-12)
    np.testing.assert_allclose(MSE(None)(*tensors), ((prediction - target) ** 2).mean(axis=1), rtol=1e-12)


@pytest.mark.parametrize(("geometry", "what"), [(CLOUD, "points that vary have"), (MASKED, "a masked grid has")])
def test_orders_are_refused_where_there_are_no_gradients(geometry, what):
    assert not has_gradients(geometry) and not has_gradients(None) and has_gradients(Grid((3, 4)))
    for order in (1, -1, 0.5):
        with pytest.raises(ValueError, match=f"order {order:g} needs gradients, and {what} none: take relative_l2"):
            norm_of(geometry, order)
    with pytest.raises(ValueError, match="order must be finite, not inf"):
        norm_of(geometry, math.inf)
    norm_of(geometry, 0)


MANY = Layout(
    (),
    (
        FieldSpec(name="u", on=CLOUD, components=2),
        FieldSpec(name="stress", on=TRIANGLES, components=3),
        FieldSpec(name="drag"),
    ),
)


def normalization_of(layout):
    """Means and deviations of every channel, all of them different."""
    channels = {block.name: torch.arange(1.0, block.shape[0] + 1) for block in layout.output_blocks}
    return Normalization({name: 3 * values for name, values in channels.items()}, channels)


def as_tensors(arrays):
    return {name: torch.tensor(array) for name, array in arrays.items()}


@pytest.mark.parametrize("name", ["relative_l2", "mse"])
def test_the_loss_of_several_arrays_is_the_mean_of_theirs_by_numbers_of_channels(name):
    """By NumPy: each array's quotient, the points by their own weights, the mesh by its lumped masses."""
    random = np.random.default_rng(0)
    arrays = {name: random.normal(5, 2, size=(6, *shape)) for name, shape in MANY.shapes.items()}
    arrays["weights"] = weights_with_padding(CLOUD, 6)
    in_stds = {
        name: random.normal(5, 2, size=arrays[name].shape) for name in ("targets", "targets_body", "target_scalars")
    }
    loss = TotalLoss(MANY, LOSSES[name])(as_tensors(in_stds), as_tensors(arrays), normalization_of(MANY))
    lumped = np.array([2 / 3, 1 / 3, 2 / 3, 1 / 3])  # a third of each triangle of area 1
    weights = {"targets": arrays["weights"], "targets_body": lumped, "target_scalars": np.ones(1)}
    expected = 0
    for block in MANY.output_blocks:
        shape = (6, block.shape[0], -1)
        stds = np.arange(1.0, block.shape[0] + 1)[:, None]
        target = arrays[block.name].reshape(shape) / stds
        error, w = in_stds[block.name].reshape(shape) - target, weights[block.name]
        mean = [(values**2 * w).sum(axis=(1, 2)) / w.sum(axis=-1).reshape(-1) / len(stds) for values in (error, target)]
        value = mean[0] if name == "mse" else np.sqrt(mean[0] / mean[1])
        expected = expected + value * len(stds) / 6
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_the_loss_of_one_array_is_that_loss_bit_for_bit():
    layout = Layout((), (FieldSpec(name="u", on=Grid((6, 5))), FieldSpec(name="v", on=Grid((6, 5)))))
    normalization = Normalization({"targets": torch.tensor([3.0, -1])}, {"targets": torch.tensor([0.5, 7])})
    arrays = {"targets": torch.randn(4, 2, 6, 5)}
    prediction = torch.randn(4, 2, 6, 5)
    typical = normalization.typical("targets").square().mean().sqrt()
    for make in (RelativeL2, H1, MSE):
        expected = make(Grid((6, 5)))(prediction, normalization.in_stds("targets", arrays["targets"]), typical)
        assert torch.equal(TotalLoss(layout, make)({"targets": prediction}, arrays, normalization), expected)


@pytest.mark.parametrize("length", [1.0, 0.01])
@pytest.mark.parametrize("order", [-1, 1, 2])
def test_a_zero_target_costs_as_much_on_a_mesh_as_on_the_grid_of_its_vertices(length, order):
    """The floor of a relative error goes by the domain's longest wave, whatever the unit of length."""
    size = 33
    grid = vertices(size, extent=(length,))
    cells = np.stack([np.arange(size - 1), np.arange(1, size)], axis=1)
    mesh = Mesh(size, 1, lambda: (grid.axes()[0][:, None], cells))
    target = torch.zeros(1, 1, size, dtype=torch.float64)
    wave = torch.tensor(np.cos(np.pi * grid.axes()[0] / length))[None, None]
    on_grid, on_mesh = (Sobolev(geometry, order=order)(wave, target).item() for geometry in (grid, mesh))
    assert on_mesh == pytest.approx(on_grid, rel=0.01)
    assert on_grid == pytest.approx(10 / math.sqrt(2), rel=1e-6)  # a tenth of what is typical, of mean square 1


def test_the_loss_of_all_outputs_is_relative_to_what_is_typical():
    """A zero target beside an offset output has its error measured by a tenth of the typical norm, by NumPy."""
    layout = Layout((), (FieldSpec(name="u", on=Grid((6, 5))), FieldSpec(name="v", on=Grid((6, 5)))))
    normalization = Normalization({"targets": torch.tensor([30.0, 0])}, {"targets": torch.tensor([2.0, 1])})
    target = torch.zeros(1, 2, 6, 5)
    prediction = torch.ones(1, 2, 6, 5)
    loss = TotalLoss(layout, RelativeL2)({"targets": prediction}, {"targets": target}, normalization)
    typical = np.sqrt(np.mean([1 + 15.0**2, 1]))
    assert loss.item() == pytest.approx(1 / (0.1 * typical), rel=1e-5)
