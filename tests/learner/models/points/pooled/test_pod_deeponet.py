"""POD-DeepONet: its basis against NumPy's SVD, and where in a run it comes from."""

from contextlib import closing

import numpy as np
import pytest
import torch

from penstock.geometry import Grid, Mesh, Points
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Reservoir
from penstock.learner.checkpoints.store import PlainStore
from penstock.learner.learner import Learner
from penstock.learner.losses.losses import RelativeL2, TotalLoss
from penstock.learner.models.points.pooled.pod_deeponet import PODDeepONet
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.settings import Settings, StopAfter
from penstock.learner.stream.stream import InProcessStream
from penstock.learner.surrogate import Surrogate
from penstock.messages import Chunk, Lease

LINE = Grid((16,), centring="vertices")
LAYOUT = Layout((FieldSpec(name="a", on=LINE),), (FieldSpec(name="u", on=LINE),))
SHARES = np.array([0.5, *[1.0] * 14, 0.5]) / 15  # the trapezoidal rule


def basis(outputs, number):
    """Mean and components times the root mean squares of their coefficients, by SVD of [N, D] with SHARES."""
    mean = outputs.mean(axis=0)
    _, values, components = np.linalg.svd((outputs - mean) * SHARES**0.5, full_matrices=False)
    return mean, (values[:, None] * components / SHARES**0.5 / len(outputs) ** 0.5)[:number]


def assert_same_up_to_signs(found, expected):
    signs = np.sign((found * expected).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(signs * found, expected, rtol=1e-3, atol=1e-4)


def test_its_basis_is_that_of_the_svd_and_the_best_there_is():
    outputs = np.random.default_rng(0).normal(size=(30, 16)) * np.linspace(0.1, 3, 16)
    model = PODDeepONet(LAYOUT, latent=5)
    model.fit({"targets": torch.tensor(outputs, dtype=torch.float32)[:, None]})
    mean, functions = basis(outputs, 5)
    np.testing.assert_allclose(model.mean, mean, atol=1e-5)
    assert_same_up_to_signs(model.functions.numpy(), functions)
    found = model.functions.double().numpy()
    products = found * SHARES @ found.T
    np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=1e-5)
    coefficients = (outputs - mean) * SHARES @ found.T / np.diag(products)
    np.testing.assert_allclose((coefficients**2).mean(axis=0), 1, rtol=1e-4)
    left = ((outputs - mean - coefficients @ found) ** 2 * SHARES).sum(axis=1).mean()
    tail = np.linalg.svd((outputs - mean) * SHARES**0.5, compute_uv=False)[5:]
    np.testing.assert_allclose(left, (tail**2).sum() / 30, rtol=1e-4)


def test_outputs_are_mean_and_functions_times_what_the_branch_gives():
    torch.manual_seed(0)
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), np.array([[0, 1, 2], [0, 2, 3]])
    mesh = Mesh(4, 2, lambda: square)
    layout = Layout((FieldSpec(name="k"),), (FieldSpec(name="u", on=mesh, components=2),))
    model = PODDeepONet(layout, width=6, latent=3)
    model.fit({"targets": torch.randn(2, 2, 4)})
    assert not model.functions[2:].any() and model.functions[0].any()  # two samples give no third function
    scalars = torch.randn(5, 1)
    expected = model.mean + model.branch(scalars) @ model.functions
    torch.testing.assert_close(model(scalars=scalars), expected.reshape(5, 2, 4))


def sample(number, design):
    random = np.random.default_rng([number, design == "validation"])
    a = np.convolve(random.normal(size=30), np.ones(15) / 4, mode="valid")
    return a, np.cumsum(a) + (100 if design == "validation" else 0)


class Sums:
    """u = the running sum of a; 100 more in the validation set, so that a basis that saw it would show."""

    def stream(self, lease):
        for number in lease.simulations:
            a, u = (np.float32(values)[None, None] for values in sample(number, lease.design))
            yield Chunk(
                design=lease.design,
                arrays={"fields": a, "targets": u},
                simulations=np.array([number]),
                steps=np.zeros(1, np.int64),
                quantiles=np.zeros((1, 1), np.float32),
                finished=(number,),
            )


def learner(stream, store, steps):
    torch.manual_seed(0)
    surrogate = Surrogate(PODDeepONet(LAYOUT, width=16, latent=4), Normalization.identity(LAYOUT), LAYOUT)
    step = Optimization(surrogate, loss=TotalLoss(LAYOUT, RelativeL2), learning_rate=1e-2, ema_decay=0.9)
    buffer = Buffer(LAYOUT, Reservoir(), capacity=40, watermark=12, seed=0)
    settings = Settings(
        batch_size=4, batches_per_simulation=2.0, stop_after=StopAfter(steps=steps), validation_simulations=6
    )
    return Learner(step, buffer, stream, LAYOUT, settings, store=store, quantile_names=("x",))


def run(store, steps):
    with closing(InProcessStream()) as stream:
        stream.submit(Lease(number=0, simulations=tuple(range(6)), design="validation"), Sums())
        stream.submit(Lease(number=1, simulations=tuple(range(60))), Sums())
        trained = learner(stream, store, steps)
        trained.run()
    return trained.trainer


def test_a_run_takes_it_from_the_samples_up_to_the_watermark_and_keeps_it(tmp_path):
    trainer = run(PlainStore(tmp_path), 20)
    normalization, model = trainer.surrogate.normalization, trainer.surrogate.model
    outputs = np.array([sample(number, "training")[1] for number in range(12)])
    encoded = (outputs - normalization.targets_mean.item()) / normalization.targets_std.item()
    mean, functions = basis(encoded, 4)
    np.testing.assert_allclose(model.mean, mean, atol=1e-3)
    assert_same_up_to_signs(model.functions.numpy(), functions)
    for name in ("mean", "functions"):
        assert torch.equal(getattr(trainer._step.averaged.model, name), getattr(model, name))
    resumed = run(PlainStore(tmp_path), 30)
    assert resumed.step == 30 and torch.equal(resumed.surrogate.model.functions, model.functions)


def test_outputs_that_sit_on_what_varies_are_refused():
    for geometry in (Points(9, 2), Grid((8, 8), is_masked=True)):
        layout = Layout((FieldSpec(name="k"),), (FieldSpec(name="u", on=geometry),))
        with pytest.raises(ValueError, match="pod_deeponet: needs outputs on a mesh or on a grid without a mask"):
            PODDeepONet(layout)
