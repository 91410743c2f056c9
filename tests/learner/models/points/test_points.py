"""Each model that takes points that vary: whatever order, padding, refinement or company they come in."""

import functools
import io

import numpy as np
import pytest
import torch

from penstock.geometry import Geometry, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.export.program import contents_of
from penstock.learner.losses.losses import RelativeL2, TotalLoss
from penstock.learner.models import MODELS
from penstock.learner.normalization import Normalization
from penstock.learner.surrogate import Surrogate
from tests.support.models import SMALL

CLOUD = Points(40, 2, extent=(3.0, 2.0), origin=(-1.0, 0.0), max_edges=60)


def layout_of(*, scalars=True, fields=True):
    inputs = [FieldSpec(name="a", on=CLOUD, components=2)] if fields else []
    inputs += [FieldSpec(name="k"), FieldSpec(name="r")] if scalars else []
    return Layout(tuple(inputs), (FieldSpec(name="u", on=CLOUD, components=2), FieldSpec(name="p", on=CLOUD)))


TAKE_POINTS = [name for name, cls in MODELS.items() if issubclass(Points, getattr(cls, "accepts", (Geometry,)))]
UNWEIGHTED = {  # whose values do not depend on the weights by design, and why
    "mesh_graph_net": "it goes by edges",
    "pointnet": "the supremum asks which points there are, not what they count",
}
ROUNDED = {
    "mp_pde": 1e-4
}  # norms over the domain leave little of a bias's gradient; in double precision 4e-14 are left
BY_EDGES = {name for name in TAKE_POINTS if Points not in MODELS[name].resolution_free}
LAYOUTS = {
    "fields and scalars": layout_of(),
    "fields": layout_of(scalars=False),
    "scalars": layout_of(fields=False),
}

on_layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)


def of_all_but(left_out):
    """Parametrises a test by the models that are not left out, on all layouts."""
    names = [name for name in TAKE_POINTS if name not in left_out]
    return lambda test: pytest.mark.parametrize("name", names)(on_layouts(test))


of_all = of_all_but(())


def samples(layout, counts, seed=0):
    """Arrays of samples with these numbers of points, joined in a chain, padded with 0 to the most of them."""
    random, length = np.random.default_rng(seed), max(counts)
    arrays = {}
    for block in layout.blocks.values():
        values = random.normal(size=(len(counts), block.shape[0], *([length] if block.is_ragged else [])))
        arrays[block.name] = values
    arrays["points"] = random.uniform([[-1.0], [0]], [[2.0], [2]], size=arrays["points"].shape)
    arrays["weights"] = random.uniform(0.01, 0.1, size=arrays["weights"].shape)
    chain = np.stack([np.arange(length - 1), np.arange(1, length)])
    arrays["edges"] = np.tile(chain, (len(counts), 1, 1))
    for row, count in enumerate(counts):
        for block in layout.blocks.values():
            if block.is_ragged:
                arrays[block.name][row, :, max(0, count - (block.name == "edges")) :] = 0
    return {
        name: torch.tensor(array, dtype=torch.int32 if name == "edges" else torch.float32)
        for name, array in arrays.items()
    }


@functools.cache
def training(name, layout):
    """A surrogate of the model, trained a little, and the losses: of an untrained one all outputs are about the same.

    u is the place times the weighted mean of the first input and of x, p is x.
    """
    torch.manual_seed(0)
    surrogate = Surrogate(MODELS[name](layout, **SMALL[name]), Normalization.identity(layout), layout)
    optimizer = torch.optim.Adam(surrogate.parameters(), 1e-2)
    loss, losses = TotalLoss(layout, RelativeL2), []
    for step in range(100):
        arrays = samples(layout, [20 + step % 5] * 8, seed=step % 20)
        x, weights = arrays["points"][:, :1], arrays["weights"]
        first = arrays[layout.input_blocks[0].name][:, :1].reshape(8, 1, -1)
        mean = ((first + x) * weights).sum(-1, keepdim=True) / weights.sum(-1, keepdim=True)
        arrays["targets"] = torch.cat([arrays["points"] * mean, x], dim=1)
        optimizer.zero_grad()
        value = loss(surrogate.predict_in_stds(arrays), arrays, surrogate.normalization).mean()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return surrogate, losses


def trained(name, layout):
    return training(name, layout)[0]


def predicted(surrogate, arrays):
    with torch.no_grad():
        return surrogate.predict(arrays)["targets"]


def assert_close(values, expected, tolerance=1e-5):
    assert (values - expected).norm() <= tolerance * expected.norm(), (values - expected).norm() / expected.norm()


def on_points(layout):
    """The arrays whose last axis is that of the points."""
    return [block.name for block in layout.blocks.values() if block.is_ragged and block.name != "edges"]


@of_all
def test_points_in_another_order_have_the_same_values(name, layout):
    surrogate, arrays = trained(name, layout), samples(layout, [25, 25])
    order = torch.randperm(25, generator=torch.Generator().manual_seed(1))
    shuffled = arrays | {each: arrays[each][..., order] for each in on_points(layout)}
    ends = torch.argsort(order)[arrays["edges"].long()].sort(dim=1).values
    shuffled["edges"] = ends.to(torch.int32)
    assert_close(predicted(surrogate, shuffled), predicted(surrogate, arrays)[..., order])


@of_all_but(BY_EDGES)
def test_each_point_twice_with_half_the_weight_changes_nothing(name, layout):
    """The sharp test that sums are taken by quadrature weights, and that nothing counts points."""
    surrogate, arrays = trained(name, layout), samples(layout, [25, 25])
    twice = arrays | {each: torch.cat([arrays[each]] * 2, dim=-1) for each in on_points(layout)}
    twice["weights"] = twice["weights"] / 2
    ends = arrays["edges"]
    pairs = [torch.stack([ends[:, 0] + a, ends[:, 1] + b], 1).sort(dim=1).values for a in (0, 25) for b in (0, 25)]
    twice["edges"] = torch.cat(pairs, dim=-1)
    expected = predicted(surrogate, arrays)
    assert_close(predicted(surrogate, twice), torch.cat([expected] * 2, dim=-1))
    assert (expected[0] - expected[1]).norm() > 0.1 * expected.norm()  # samples differ, so there is something to see


@of_all_but(UNWEIGHTED)
def test_weights_count(name, layout):
    surrogate, arrays = trained(name, layout), samples(layout, [25])
    other = arrays | {"weights": arrays["weights"] * torch.linspace(0.1, 2, 25)}
    expected = predicted(surrogate, arrays)
    change = (predicted(surrogate, other) - expected).norm()
    assert change > 1e-4 * expected.norm()  # ten times what counts as equal above


def lattice(layout, num):
    """A sample at num x num points of the box, with the trapezoidal rule's weights and smooth inputs."""
    x, y = np.meshgrid(np.linspace(-1, 2, num), np.linspace(0, 2, num), indexing="ij")
    ends = np.ones(num)
    ends[[0, -1]] = 0.5
    numbers = np.arange(num * num).reshape(num, num)
    edges = [(numbers[:-1], numbers[1:]), (numbers[:, :-1], numbers[:, 1:])]
    arrays = {
        "points": np.stack([x, y]).reshape(1, 2, -1),
        "weights": (6 * np.outer(ends, ends) / (num - 1) ** 2).reshape(1, 1, -1),
        "fields": np.stack([np.sin(x) * y, np.cos(x + y)]).reshape(1, 2, -1),
        "scalars": np.array([[0.5, -0.5]]),
    }
    arrays = {name: torch.tensor(arrays[name], dtype=torch.float32) for name in arrays.keys() & layout.blocks.keys()}
    ends = np.hstack([np.stack([a.ravel(), b.ravel()]) for a, b in edges])[None]
    return arrays | {"edges": torch.tensor(ends, dtype=torch.int32)}


@of_all_but(BY_EDGES)
def test_as_points_are_refined_values_converge(name, layout):
    """Inputs are smooth, so by the trapezoidal rule each refinement divides the change by about 4."""
    surrogate = trained(name, layout)
    coarse, medium, fine = (
        predicted(surrogate, lattice(layout, num)).unflatten(2, (num, num))[..., :: (num - 1) // 4, :: (num - 1) // 4]
        for num in (5, 9, 17)
    )
    changes = (medium - coarse).norm() / medium.norm(), (fine - medium).norm() / fine.norm()
    assert changes[0] < 0.1 and changes[1] < 0.5 * changes[0], changes


@of_all
def test_what_lies_at_weight_0_changes_neither_values_nor_gradients(name, layout):
    surrogate, counts = trained(name, layout), [25, 9, 17]
    arrays, loss = samples(layout, counts), TotalLoss(layout, RelativeL2)
    is_there = arrays["weights"] > 0
    generator = torch.Generator().manual_seed(2)
    garbage = arrays | {
        each: torch.where(is_there, arrays[each], 10 * torch.randn(arrays[each].shape, generator=generator))
        for each in on_points(layout)
        if each != "weights"
    }
    longer = {each: torch.nn.functional.pad(arrays[each], (0, 30)) for each in on_points(layout)} | {
        each: torch.nn.functional.pad(arrays[each], (0, 11)) if each == "edges" else arrays[each]
        for each in arrays.keys() - set(on_points(layout))
    }
    found = []
    for each in (arrays, garbage, longer):
        surrogate.zero_grad()
        loss(surrogate.predict_in_stds(each), each, surrogate.normalization).sum().backward()
        values = torch.where(is_there, predicted(surrogate, each)[..., :25], 0.0)
        found.append([values, *(parameter.grad.clone() for parameter in surrogate.parameters())])
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            assert_close(theirs, mine, ROUNDED.get(name, 1e-5))


@of_all
def test_a_batch_of_different_geometries_is_the_batches_of_one(name, layout):
    surrogate, counts = trained(name, layout), [25, 9]
    arrays = samples(layout, counts)
    together = predicted(surrogate, arrays)
    for row, count in enumerate(counts):
        alone = {each: array[row : row + 1] for each, array in arrays.items()}
        alone |= {each: alone[each][..., :count] for each in on_points(layout)}
        alone["edges"] = alone["edges"][..., : count - 1]
        assert_close(predicted(surrogate, alone)[0], together[row, :, :count])


SLOW_TO_EXPORT = {"gaot"}  # two kernels with attention and a transformer take torch.export 6 s
TO_EXPORT = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW_TO_EXPORT else []) for name in TAKE_POINTS]


@pytest.mark.parametrize("name", TO_EXPORT)
@pytest.mark.parametrize("layout", [LAYOUTS["fields and scalars"]], ids=["fields and scalars"])  # it takes seconds
def test_the_exported_file_takes_any_number_of_samples_and_of_points(name, layout):
    surrogate = trained(name, layout)
    contents, card = contents_of(surrogate, {}, samples(layout, [40, 40]))
    module = torch.export.load(io.BytesIO(contents)).module()
    for counts in ([97, 60, 97, 12, 1], [3]):
        inputs = by_name(layout, samples(layout, counts))
        outputs, expected = module(**inputs), surrogate(**inputs)
        for each in expected:
            assert_close(outputs[each], expected[each])
    shapes = {each["name"]: each["shape"] for each in card["inputs"] + card["outputs"]}
    assert shapes["points"] == ["batch", "points (at most 40)", 2] and shapes["u"] == [
        "batch",
        2,
        "points (at most 40)",
    ]
    assert shapes["weights"] == shapes["p"] == ["batch", "points (at most 40)"]


def by_name(layout, arrays):
    blocks = (*layout.input_blocks, *layout.geometry_blocks)
    return {each: values for block in blocks for each, values in block.by_name(arrays[block.name]).items()}


@of_all
def test_it_learns_what_depends_on_place_and_on_the_whole(name, layout):
    _, losses = training(name, layout)
    assert np.mean(losses[-10:]) < 0.6 * losses[0]
