"""Which model takes which geometry, what it says to others, and what is said of outputs that do not fit."""

import numpy as np
import pytest
import torch
from torch import nn

from penstock.errors import PenstockError
from penstock.geometry import Geometry, Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.export.program import contents_of
from penstock.learner.losses.losses import MSE, TotalLoss
from penstock.learner.models import MODELS, refused_geometry
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.rehearsal.rehearsal import rehearse, try_out
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.validation import Validation
from tests.support.models import SMALL


def square():
    return np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), np.array([[0, 1, 2], [0, 2, 3]])


GEOMETRIES = {
    "grid": Grid((8, 8)),
    "odd grid": Grid((7, 10), extent=(1.0, 2.0)),
    "vertices": Grid((11,), centring="vertices"),  # an export is traced on 11 points and tried on 16
    "masked grid": Grid((8, 8), is_masked=True),  # ... and on 12 x 13
    "mesh": Mesh(4, 2, square),
    "points": Points(30, 2, max_edges=20),
}


def layout_on(geometry, *scalars):
    outputs = (FieldSpec(name="u", on=geometry, components=2), *(FieldSpec(name=name) for name in scalars))
    return Layout((FieldSpec(name="a", on=geometry), FieldSpec(name="k")), outputs)


def surrogate_of(model, layout):
    return Surrogate(model, Normalization.identity(layout), layout)


@pytest.mark.parametrize(
    ("name", "geometry", "expected"),
    [
        ("fno", "mesh", "fno takes fields on a grid, and 'u' sits on a mesh: take branch_trunk, "),
        ("fno", "points", "fno takes fields on a grid, and 'u' sits on points that vary: take branch_trunk"),
        ("mlp", "points", "mlp takes fields on a grid or a mesh, and 'u' sits on points that vary: take branch_trunk"),
    ],
)
def test_a_model_that_can_not_take_a_geometry_names_those_that_can(name, geometry, expected):
    refusal = refused_geometry(name, MODELS[name], layout_on(GEOMETRIES[geometry]))
    assert refusal.startswith(expected) and "\n" not in refusal


def test_where_none_of_ours_will_do_a_model_of_ones_own_is_asked_for():
    outputs = FieldSpec(name="u", on=Points(9, 2)), FieldSpec(name="drag")
    layout = Layout((FieldSpec(name="g", on=Grid((4, 4), name="g")),), outputs)
    expected = "fno takes fields on a grid, and 'u' sits on points that vary: give a custom model"
    assert refused_geometry("fno", MODELS["fno"], layout) == expected
    assert refused_geometry("mine", nn.Identity, layout) is None  # it is taken to know what it does


# Each value has weights, or a basis; the moe is of DeepONets. Where a mask varies, most take integrals instead.
ONE_RESOLUTION = {"deeponet", "mlp", "moe", "multi_onet", "pod_deeponet"}
REFUSED = {("pod_deeponet", "masked grid")}  # each sample has another domain, and a basis needs one
HERE = {"rigno": {"resolution": 5}}  # the regions of the mesh's four points are then 4 cells apart, so they are joined

ACCEPTED = [
    (name, geometry)
    for name, cls in MODELS.items()
    if name in SMALL  # neuralop has a test alone, as its package is optional
    for geometry, where in GEOMETRIES.items()
    if isinstance(where, getattr(cls, "accepts", (Geometry,))) and (name, geometry) not in REFUSED
]


def rehearsed(make, layout, folder):
    """The notes of a rehearsal on `layout`, of the surrogates that `make` gives."""
    return rehearse(
        make,
        lambda surrogate: Optimization(surrogate, loss=TotalLoss(layout, MSE), learning_rate=1e-3, ema_decay=0.9),
        lambda arrays: Validation(arrays, layout, batch_size=2),
        batch_sizes=(4, 1),
        folder=folder,
        must_repeat=True,
    )


@pytest.mark.parametrize(("name", "geometry"), ACCEPTED)
def test_what_a_model_accepts_it_lives_on(name, geometry, tmp_path):
    """Trained, averaged, validated, saved, restored, as in a run.

    A rehearsal has a note where a sample depends on its batch, two predictions differ, or a parameter has no gradient.
    """
    layout = layout_on(GEOMETRIES[geometry])
    assert refused_geometry(name, MODELS[name], layout) is None

    def make():
        surrogate = surrogate_of(MODELS[name](layout, **SMALL[name] | HERE.get(name, {})), layout)
        try_out(surrogate, name)
        return surrogate

    assert rehearsed(make, layout, tmp_path) == []
    assert not any(values.is_complex() for values in make().state_dict().values())


# All but two geometries: the odd grid is one of cells, as the other, whose file is tried on 12 x 13 points; and on
# points that vary `test_points.py` exports each model that takes them. torch.export takes 0.3 to 6 s of a core for free
# sizes, and 9 s for the five pairs of grids of a U-NO: 3 minutes in all, with the rehearsals above 4.
EXPORTED = [(name, geometry) for name, geometry in ACCEPTED if geometry not in ("odd grid", "points")]
QUICK_TO_TRACE = {"branch_trunk", "fno", "mlp"}


@pytest.mark.parametrize(
    ("name", "geometry"),
    [pytest.param(*pair, marks=[] if pair[0] in QUICK_TO_TRACE else [pytest.mark.slow]) for pair in EXPORTED],
)
def test_what_was_trained_on_a_geometry_is_the_same_in_a_file(name, geometry):
    """`contents_of` reads what it wrote, and compares: at other sizes too, where these are free."""
    layout = layout_on(GEOMETRIES[geometry])
    torch.manual_seed(0)
    surrogate = surrogate_of(MODELS[name](layout, **SMALL[name] | HERE.get(name, {})), layout)
    step = Optimization(surrogate, loss=TotalLoss(layout, MSE), learning_rate=1e-2)
    for number in range(3):
        assert step(free_samples(layout, 4 + number, torch.device("cpu")), 1e-2).isfinite()
    _, card = contents_of(surrogate, {}, free_samples(layout, 2, torch.device("cpu")))
    batch, *sizes = card["inputs"][0]["shape"]
    assert batch == "batch"
    is_free = geometry != "mesh" and name not in ONE_RESOLUTION
    assert not is_free or not any(isinstance(size, int) for size in sizes)


ON_MASKS = [name for name, geometry in ACCEPTED if geometry == "masked grid"]


@pytest.mark.parametrize("name", ON_MASKS)
def test_what_a_field_holds_outside_of_a_mask_changes_no_prediction_inside(name):
    """Samples in a training hold 0 there; a caller's, and predictions that a rollout gives back, hold anything."""
    layout = layout_on(GEOMETRIES["masked grid"])
    torch.manual_seed(0)
    model = MODELS[name](layout, **SMALL[name])
    means, stds = ({"fields": torch.ones(1), "scalars": torch.ones(1), "targets": torch.ones(2)} for _ in range(2))
    surrogate = Surrogate(model, Normalization(means, stds), layout)
    for parameter in model.parameters():  # some models start as if their inputs counted little
        parameter.data += 0.1 * torch.randn_like(parameter)
    arrays = free_samples(layout, 3, torch.device("cpu"))
    inside = arrays["weights"] > 0
    inside[:, :, :3, 2:5] = False
    arrays["weights"] = arrays["weights"] * inside
    trained_on = arrays | {"fields": arrays["fields"] * inside}
    with torch.no_grad():
        expected = surrogate.predict(trained_on)["targets"]
        for outside in (-1e6, float("nan")):
            found = surrogate.predict(arrays | {"fields": torch.where(inside, arrays["fields"], outside)})["targets"]
            assert torch.equal(found, expected)
        other = surrogate.predict(arrays | {"fields": 2 * arrays["fields"]})["targets"]
    assert not torch.allclose(other, expected)  # what it holds inside counts


class Pooling(nn.Module):
    """Adds to each point a mean over all points, weighted or not."""

    accepts = Points  # one kind alone is taken, too

    def __init__(self, is_weighted):
        super().__init__()
        self.factors = nn.Parameter(torch.ones(2, 1))
        self.is_weighted = is_weighted

    def forward(self, fields, weights, scalars):
        shares = weights / weights.sum(dim=1, keepdim=True) if self.is_weighted else torch.full_like(weights, 1e-2)
        return fields + self.factors * (fields * shares[:, None]).sum(dim=2, keepdim=True) + scalars[:, None]


class Whole(nn.Module):
    """Knows one number of points only."""

    def __init__(self, num_points):
        super().__init__()
        self.net = nn.Linear(num_points, num_points)

    def forward(self, fields, weights, scalars):
        return (self.net(fields * weights[:, None]) + scalars[:, None]).expand(-1, 2, -1)


def test_a_model_that_minds_padding_or_cut_batches_is_refused_before_a_solve(tmp_path):
    layout = layout_on(Points(200, 2))
    assert rehearsed(lambda: surrogate_of(Pooling(True), layout), layout, tmp_path) == []
    with pytest.raises(
        PenstockError, match=r"depends on how far a sample is padded .* weights, which are 0 at padding"
    ):
        rehearsed(lambda: surrogate_of(Pooling(False), layout), layout, tmp_path)
    with pytest.raises(PenstockError, match="a training step on 4 samples fails: RuntimeError: mat1 and mat2 shapes"):
        rehearsed(lambda: surrogate_of(Whole(200), layout), layout, tmp_path)


def test_weights_of_the_rehearsal_are_of_a_domain_s_measure():
    for geometry in (Points(300, 3, extent=(1e-3, 2.0, 1.0)), Grid((9, 7), extent=(5.0, 2.0), is_masked=True)):
        weights = free_samples(layout_on(geometry), 4, torch.device("cpu"))["weights"].flatten(1)
        torch.testing.assert_close(weights.sum(dim=1), torch.full((4,), np.prod(geometry.extent), dtype=torch.float32))


def test_branch_trunk_on_a_mesh_is_its_formula():
    """By NumPy: the integral by lumped masses, both nets written out."""
    torch.manual_seed(0)
    mesh = Mesh(4, 2, lambda: (3 * square()[0], square()[1]))
    layout = layout_on(mesh)
    model = MODELS["branch_trunk"](layout, width=5, latent=3, layers=1)
    arrays = free_samples(layout, 6, torch.device("cpu"))
    with torch.no_grad():
        outputs = surrogate_of(model, layout).predict(arrays)["targets"]
    phi = np.vectorize(lambda x: float(nn.functional.gelu(torch.tensor(x, dtype=torch.float64))))
    (a1, b1, a2, b2), (c1, d1, c2, d2) = (
        [parameter.detach().double().numpy() for parameter in net.parameters()] for net in (model.branch, model.trunk)
    )
    points, shares = square()[0], np.array([1 / 3, 1 / 6, 1 / 3, 1 / 6])
    for fields, scalars, output in zip(arrays["fields"], arrays["scalars"], outputs, strict=True):
        inputs = np.hstack([points, fields.numpy().T, np.tile(scalars.numpy(), (4, 1))])
        z = shares @ (phi(inputs @ a1.T + b1) @ a2.T + b2)
        u = phi(np.hstack([inputs, np.tile(z, (4, 1))]) @ c1.T + d1) @ c2.T + d2
        np.testing.assert_allclose(output, u.T, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"width": 0}, {"latent": 0}, {"layers": 0}])
def test_a_size_below_1_is_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"branch_trunk: {name} must be at least 1, not 0"):
        MODELS["branch_trunk"](layout_on(GEOMETRIES["mesh"]), **options)


@pytest.mark.parametrize(
    "layout",
    [
        layout_on(GEOMETRIES["mesh"], "drag"),
        Layout((FieldSpec(name="a", on=Points(3, 2, name="cloud")),), (FieldSpec(name="u", on=GEOMETRIES["mesh"]),)),
    ],
)
def test_branch_trunk_takes_one_geometry_and_no_scalar_outputs(layout):
    with pytest.raises(ValueError, match="branch_trunk: needs all fields on one geometry, and no scalars as outputs"):
        MODELS["branch_trunk"](layout)
    assert "\n" not in refused_geometry("fno", MODELS["fno"], layout)


def test_the_net_gives_scalars_and_fields_on_a_mesh_side_by_side():
    layout = layout_on(GEOMETRIES["mesh"], "drag", "lift")
    torch.manual_seed(0)
    model = MODELS["mlp"](layout, hidden=(6,))
    arrays = free_samples(layout, 3, torch.device("cpu"))
    outputs = surrogate_of(model, layout).predict(arrays)
    first, second = model.layers
    x = torch.cat([arrays["scalars"], arrays["fields"].flatten(1)], dim=1)
    flat = second(torch.relu(first(x)))
    torch.testing.assert_close(outputs["targets"], flat[:, :8].unflatten(1, (2, 4)))
    torch.testing.assert_close(outputs["target_scalars"], flat[:, 8:])


def test_the_fno_sees_the_mask_of_a_domain_and_not_its_weights():
    torch.manual_seed(0)
    layout = layout_on(GEOMETRIES["masked grid"])
    surrogate = surrogate_of(MODELS["fno"](layout, width=6, modes=3, layers=1), layout)
    arrays = free_samples(layout, 2, torch.device("cpu"))
    arrays["weights"][:, :, 5:] = 0
    scaled = arrays | {"weights": 3 * arrays["weights"]}
    other = arrays | {"weights": arrays["weights"].flip(2)}
    with torch.no_grad():
        expected, same, different = (surrogate.predict(each)["targets"] for each in (arrays, scaled, other))
    assert torch.equal(expected, same) and not torch.allclose(expected, different)


class Returns(nn.Module):
    """What it is given, beside a parameter."""

    def __init__(self, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.outputs = outputs

    def forward(self, weights, **arrays):
        return self.outputs(arrays["fields"], self.weight)


def both(fields, weight):
    return {"targets": weight * fields.expand(-1, 2, -1), "target_scalars": weight * fields[:, 0, :1]}


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (lambda f, w: both(f, w)["targets"], r"Mine returns a Tensor and must return a dict of tensors, \{'targets': "),
        (lambda f, w: {"targets": w * f}, r"Mine returns a dict of \['targets'\] and must return a dict of tensors, "),
        (lambda f, w: both(f, w) | {"u": w}, r"returns a dict of \['target_scalars', 'targets', 'u'\] and must"),
        (
            lambda f, w: both(f, w) | {"targets": None},
            "returns a NoneType as targets and must return a dict of tensors",
        ),
        (
            lambda f, w: both(f, w) | {"targets": w * f},
            r"Mine gives \[2, 1, 30\] as targets for two samples and must give \[2, 2, 30\]$",
        ),
        (
            lambda f, w: both(f, w) | {"target_scalars": w * f[:, 0, 0]},
            r"Mine gives \[2\] as target_scalars for two samples and must give \[2, 1\]$",
        ),
        (
            lambda f, w: both(f, w) | {"target_scalars": (w * f[:, 0, :1]).int()},
            "returns int32 as target_scalars and must return real",
        ),
    ],
)
def test_outputs_of_several_arrays_that_do_not_fit_are_told_by_name(outputs, expected):
    layout = layout_on(GEOMETRIES["points"], "drag")
    with pytest.raises(PenstockError, match=f"^model: .*{expected}") as refusal:
        try_out(surrogate_of(Returns(outputs), layout), "Mine")
    assert "\n" not in str(refusal.value)


def test_outputs_of_several_arrays_that_fit_are_taken_and_one_may_come_in_a_dict():
    try_out(surrogate_of(Returns(both), layout_on(GEOMETRIES["points"], "drag")), "Mine")
    alone = Returns(lambda fields, weight: {"targets": both(fields, weight)["targets"]})
    try_out(surrogate_of(alone, layout_on(GEOMETRIES["points"])), "Mine")
