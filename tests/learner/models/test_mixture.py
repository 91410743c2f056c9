"""Mixtures of experts: the weighted sum by hand, what the gate sees, export, and what they learn that one can't."""

import io

import numpy as np
import pytest
import torch

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.export.program import contents_of
from penstock.learner.models import MODELS
from penstock.learner.models.mixture import Mixture
from penstock.learner.models.points.pooled.pod_deeponet import PODDeepONet
from penstock.learner.normalization import Normalization
from penstock.learner.rehearsal.free_samples import free_samples
from penstock.learner.surrogate import Surrogate

TINY = {"width": 4, "modes": 2, "layers": 1}
GRID = Grid((8, 9))


def layout_on(on, *scalars, outputs=("u",)):
    inputs = (FieldSpec(name="a", on=on), *(FieldSpec(name=name) for name in scalars))
    return Layout(inputs, tuple(FieldSpec(name=name, on=on) for name in outputs))


def mixture(layout, **options):
    torch.manual_seed(0)
    return Mixture(layout, **{"options": TINY, "experts": 3} | options)


def test_the_prediction_is_the_sum_of_the_experts_by_the_softmax_of_the_gate():
    model = mixture(layout_on(GRID, "s", "t"))
    fields, scalars = torch.randn(5, 1, 8, 9), torch.randn(5, 2)
    hidden, last = model.gate[0], model.gate[2]
    logits = torch.nn.functional.gelu(scalars @ hidden.weight.T + hidden.bias) @ last.weight.T + last.bias
    shares = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    each = torch.stack([expert(fields=fields, scalars=scalars) for expert in model.experts])
    expected = torch.einsum("be,ebcxy->bcxy", shares, each)
    torch.testing.assert_close(model(fields=fields, scalars=scalars), expected)
    assert (each[0] - each[1]).abs().max() > 0.01 and len(each) == 3


def test_one_expert_is_the_model_alone():
    model = mixture(layout_on(GRID), experts=1)
    fields = torch.randn(2, 1, 8, 9)
    assert torch.equal(model(fields=fields), model.experts[0](fields))


def test_scalars_alone_choose_the_experts_where_there_are_any():
    model = mixture(layout_on(GRID, "s"))
    scalars = torch.randn(2, 1)
    shares = [model.shares({"fields": torch.randn(2, 1, 8, 9), "scalars": scalars}) for _ in range(2)]
    assert torch.equal(*shares) and not torch.allclose(shares[0][0], shares[0][1])


def seen_by_the_gate(model, arrays):
    seen = []
    model.gate.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model.shares(arrays)
    return seen[0].detach().numpy()


def test_without_scalars_the_gate_sees_means_over_the_domain():
    """Of a field and of its square: by cells, by the trapezoidal rule, on a masked grid by its weights."""
    values = np.random.default_rng(0).normal(size=(2, 1, 8, 9))
    trapezoidal = np.outer(*(np.r_[0.5, np.ones(n - 2), 0.5] for n in (8, 9)))
    masked = np.random.default_rng(1).random((2, 8, 9))
    for grid, weights in (
        (GRID, np.ones((8, 9))),
        (Grid((8, 9), centring="vertices"), trapezoidal),
        (Grid((8, 9), is_masked=True), masked),
    ):
        arrays = {"fields": values} | ({"weights": masked} if weights is masked else {})
        arrays = {name: torch.tensor(array, dtype=torch.float32) for name, array in arrays.items()}
        shares = weights / weights.sum(axis=(-2, -1), keepdims=True)
        expected = [(values[:, 0] ** power * shares).sum(axis=(1, 2)) for power in (1, 2)]
        found = seen_by_the_gate(mixture(layout_on(grid)), arrays)
        np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-4, atol=1e-6)


def test_points_that_vary_tell_samples_apart_without_any_field():
    points = Points(6, 2)
    layout = Layout((), (FieldSpec(name="u", on=points),))
    model = mixture(layout, model="pointnet", options={"width": 2})
    arrays = {"points": torch.rand(2, 6, 2), "weights": torch.tensor([[1.0, 2, 3, 0, 0, 0], [1, 1, 1, 1, 1, 1]])}
    shares = arrays["weights"] / arrays["weights"].sum(dim=1, keepdim=True)
    expected = [(arrays["points"] ** power * shares[..., None]).sum(dim=1) for power in (1, 2)]
    np.testing.assert_allclose(seen_by_the_gate(model, arrays), torch.cat(expected, dim=1), rtol=1e-5)


def test_experts_with_several_arrays_of_outputs_and_with_a_basis():
    """Scalars beside fields from an mlp; each pod_deeponet takes its basis from the samples."""
    layout = Layout((FieldSpec(name="k"),), (FieldSpec(name="u", on=GRID), FieldSpec(name="drag")))
    outputs = mixture(layout, model="mlp", options={"hidden": (4,)})(scalars=torch.randn(2, 1))
    assert {name: values.shape for name, values in outputs.items()} == {
        "targets": (2, 1, 8, 9),
        "target_scalars": (2, 1),
    }
    model = mixture(layout_on(GRID), model="pod_deeponet", options={"width": 4, "latent": 2, "layers": 1})
    alone = PODDeepONet(layout_on(GRID), width=4, latent=2, layers=1)
    samples = {"targets": torch.randn(8, 1, 8, 9)}
    assert (
        model.num_samples_to_fit == alone.num_samples_to_fit == 8 and mixture(layout_on(GRID)).num_samples_to_fit == 0
    )
    model.fit(samples), alone.fit(samples)
    for expert in model.experts:
        torch.testing.assert_close(expert.functions, alone.functions)


def test_it_learns_a_map_that_switches_where_one_linear_expert_can_not():
    """u = a for k < 0 and -a for k > 0, by experts that are linear in (k, a) together: of one the best is u = 0."""
    layout = Layout((FieldSpec(name="a", on=Grid((4,))), FieldSpec(name="k")), (FieldSpec(name="u", on=Grid((4,))),))
    errors = []
    for experts in (1, 2):
        model = mixture(layout, model="mlp", options={"hidden": ()}, experts=experts)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(300):
            fields, scalars = torch.randn(64, 1, 4), torch.randn(64, 1)
            error = (model(fields=fields, scalars=scalars) + fields * scalars.sign()[..., None]).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
        errors.append(error.item())
    assert errors[0] > 0.8 and errors[1] < 0.1


def test_the_exported_program_takes_any_batch_and_resolution():
    layout = layout_on(GRID, "s")
    surrogate = Surrogate(mixture(layout, experts=2), Normalization.identity(layout), layout)
    contents, card = contents_of(surrogate, {}, free_samples(layout, 2, torch.device("cpu")))
    assert [size for each in card["inputs"] for size in each["shape"] if isinstance(size, int)] == []
    program = torch.export.load(io.BytesIO(contents)).module()
    inputs = {"a": torch.randn(3, 12, 11), "s": torch.randn(3)}
    torch.testing.assert_close(program(**inputs)["u"], surrogate(**inputs)["u"], rtol=1e-4, atol=1e-5)


def test_what_can_not_be_is_refused_in_one_line():
    mesh = Mesh(3, 2, lambda: (np.array([[0.0, 0], [1, 0], [0, 1]]), np.array([[0, 1, 2]])))
    for layout, message, options in (
        (layout_on(GRID), "moe: model must be branch_trunk or .* or upt, not 'moe'", {"model": "moe"}),
        (layout_on(GRID), "moe: experts must be at least 1, not 0", {"experts": 0}),
        (layout_on(GRID), "fno: width must be at least 1, not 0", {"options": {"width": 0}}),
        (layout_on(mesh), "moe: fno does not take fields on a mesh: give another model", {}),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            mixture(layout, **options)


def test_it_is_resolution_free_where_its_experts_are():
    for name in ("fno", "mlp"):
        model = mixture(layout_on(GRID), model=name, options=None if name == "mlp" else TINY)
        assert model.resolution_free == MODELS[name].resolution_free
