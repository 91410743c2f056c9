"""What every model on a grid promises, by its name alone: shapes, samples, gradients, state and finer grids."""

import inspect

import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.models import MODELS

NAMES = [name for name, cls in MODELS.items() if cls.__module__.startswith("penstock.learner.models.grids.")]
BY_CELLS = {name for name in NAMES if not MODELS[name].resolution_free}  # a finer grid is another operator, by design
WRAPPERS = {"mg_tfno"}  # of a model with a width
SMALL = {"width": 8, "layers": 2}
GRIDS = {
    "one axis": Grid((33,)),
    "odd": Grid((17, 23)),
    "long": Grid((40, 9)),
    "one axis of two periodic": Grid((16, 21), periodic=(False, True)),
    "periodic": Grid((18, 16), periodic=True),
    "masked": Grid((15, 16), is_masked=True),
    "three axes": Grid((9, 8, 11), periodic=(True, False, False)),
}


def layout_on(grid, *scalars):
    fields = FieldSpec(name="a", on=grid, components=2), FieldSpec(name="b", on=grid)
    return Layout((*fields, *(FieldSpec(name=name) for name in scalars)), (FieldSpec(name="u", on=grid, components=2),))


def new_model(name, layout, **options):
    torch.manual_seed(0)
    known = inspect.signature(MODELS[name]).parameters
    return MODELS[name](layout, **{key: value for key, value in (SMALL | options).items() if key in known})


def arguments(grid, batch_size, *, scalars=2, shape=None):
    shape = shape or grid.shape
    inputs = {"fields": torch.randn(batch_size, 3, *shape)}
    if scalars:
        inputs["scalars"] = torch.randn(batch_size, scalars)
    if grid.is_masked:
        inputs["weights"] = torch.rand(batch_size, *shape).sub(0.3).clamp_min(0)
    return inputs


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_predicted_alone_and_the_same_each_time_on_every_grid(name, grid):
    grid = GRIDS[grid]
    model = new_model(name, layout_on(grid, "s", "t")).eval()
    inputs = arguments(grid, 3)
    with torch.no_grad():
        outputs, again = model(**inputs), model(**inputs)
        alone = model(**{key: values[1:2] for key, values in inputs.items()})
    assert outputs.shape == (3, 2, *grid.shape) and outputs.isfinite().all() and outputs.is_contiguous()
    assert torch.equal(outputs, again)
    torch.testing.assert_close(alone[0], outputs[1], rtol=1e-3, atol=1e-5 * outputs.abs().max().item())


def without_dead_neurons(model):
    """The model with GELU in place of ReLU, which has no gradient where a neuron is silent for all samples."""
    for module in [*model.modules()]:
        for key, child in module.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(module, key, torch.nn.GELU())
    return model


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter_and_every_input_counts(name):
    """In double precision: what the mathematics says is 0 comes out as 1e-16 of the largest gradient, or less."""
    grid = GRIDS["odd"]
    model = without_dead_neurons(new_model(name, layout_on(grid, "s", "t"))).double()
    inputs = {key: values.double().requires_grad_() for key, values in arguments(grid, 2).items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):  # what is 0 at first hides from the gradient what is behind it
        optimizer.step()
        optimizer.zero_grad()
        model(**inputs).square().mean().backward()
    gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
    gradients |= {key: values.grad.movedim(1, 0) for key, values in inputs.items()}
    largest = max(gradient.abs().max() for gradient in gradients.values())
    for key, gradient in gradients.items():
        assert gradient.reshape(len(gradient), -1).abs().amax(dim=1).min() > 1e-13 * largest, key


@pytest.mark.parametrize("name", NAMES)
def test_state_is_of_plain_real_numbers_and_restores_a_model(name):
    layout = layout_on(GRIDS["odd"])
    model, other = new_model(name, layout), new_model(name, layout)
    for parameter in other.parameters():
        parameter.data.fill_(0.5)
    assert all(values.dtype == torch.float32 for values in model.state_dict().values())
    other.load_state_dict(model.state_dict())
    inputs = arguments(GRIDS["odd"], 1, scalars=0)
    assert torch.equal(other(**inputs), model(**inputs))


@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_a_model_was_not_built_for(name):
    """All remainders of a division by 8 along either axis, in one model."""
    grid = Grid((32, 32))
    model = new_model(name, layout_on(grid), modes=4)
    for shape in ((32, 39), (33, 38), (34, 37), (35, 36), (67, 40)):
        assert model(**arguments(grid, 1, scalars=0, shape=shape)).shape == (1, 2, *shape)


@pytest.mark.parametrize("name", NAMES)
def test_a_finer_grid_gives_the_same_function_unless_kernels_reach_cells(name):
    """A band-limited field at the centres of 32 and of 96 cells."""
    grid = Grid((32, 32))
    model = new_model(name, layout_on(grid), modes=4)

    def fields(n):
        x = 2 * torch.pi * (torch.arange(n) + 0.5) / n
        waves = (
            torch.sin(x)[:, None] * torch.cos(2 * x),
            torch.cos(x)[:, None].expand(n, n),
            torch.sin(x).expand(n, n),
        )
        return torch.stack(waves)[None]

    with torch.no_grad():
        coarse, fine = model(fields(32)), model(fields(96))[:, :, 1::3, 1::3]  # at the centres of the coarse cells
    # the coordinates' sawtooth is not band-limited, so its sampled spectrum differs by O(1 / n)
    assert (torch.linalg.vector_norm(fine - coarse) < 0.05 * torch.linalg.vector_norm(coarse)) == (name not in BY_CELLS)


@pytest.mark.parametrize("name", NAMES)
def test_fields_of_other_layouts_are_refused_in_one_line(name):
    cells, vertices = Grid((8,), name="cells"), Grid((9,), centring="vertices", name="vertices")
    refused = {
        "these sit on 'vertices' and 'cells'": Layout(
            (FieldSpec(name="a", on=cells),), (FieldSpec(name="u", on=vertices),)
        ),
        "needs an input field": Layout((FieldSpec(name="t"),), (FieldSpec(name="u", on=cells),)),
        "no scalars among the outputs": Layout(
            (FieldSpec(name="a", on=cells),), (FieldSpec(name="u", on=cells), FieldSpec(name="c"))
        ),
        "1 to 3 axes, not 4": layout_on(Grid((4, 4, 4, 4))),
    }
    for message, layout in refused.items():
        with pytest.raises(ValueError, match=f"^{name}: .*{message}") as refusal:
            MODELS[name](layout)
        assert "\n" not in str(refusal.value)
    inner, options = ("fno", {"options": {"width": 0}}) if name in WRAPPERS else (name, {"width": 0})
    with pytest.raises(ValueError, match=f"{inner}: width must be at least 1, not 0"):
        MODELS[name](layout_on(Grid((16, 16))), **options)
