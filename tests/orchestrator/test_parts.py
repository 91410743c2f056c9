"""What a configuration makes of a learner's parts, and what it refuses."""

import pickle
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from penstock.errors import PenstockError
from penstock.learner.buffers.units import Samples, Trajectories
from penstock.learner.buffers.windows import Pairs, Windows
from penstock.learner.checkpoints.store import PlainStore
from penstock.learner.stream.lanes import Lanes
from penstock.learner.stream.lockstep import Lockstep
from penstock.learner.stream.stream import InProcessStream
from penstock.messages import Chunk, Lease
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import Plan, resolve
from penstock.orchestrator.resources.bounds import require_room, validation_size
from penstock.orchestrator.resources.placement import fits_beside_training, make_buffer, pick_device, require_placement
from penstock.orchestrator.store.run_folder import RunFolder
from tests.support.learners import NoStream
from tests.support.refusals import refusal

ROOT = Path(__file__).parents[2]

TRANSIENT = """
from penstock.geometry import Grid
from penstock.layout import FieldSpec
from penstock.solvers.parameters.space import ParameterSpace, Uniform
from penstock.solvers.problem import Problem


class Transient(Problem):
    '''Ten steps of nothing.'''

    num_steps = 10
    space = ParameterSpace(x=Uniform(0.0, 1.0))
    inputs = (FieldSpec(name="a", on=Grid((16, 16))), FieldSpec(name="t"))
    outputs = (FieldSpec(name="u", on=Grid((16, 16))),)

    def simulate(self, parameters, solve):
        raise NotImplementedError
"""


@pytest.fixture
def plan(tmp_path):
    """A function from sections of the configuration to the plan of a transient problem."""
    (tmp_path / "transient.py").write_text(TRANSIENT)

    def make(**sections) -> Plan:
        values = {
            "problem": f"{tmp_path}/transient.py:Transient",
            "model": {"name": "fno", "width": 8, "modes": 4, "layers": 1},
            "buffer": {"capacity": 200, "watermark": 50, "batches_per_simulation": 0.5},
            "training": {"batch_size": 4, "stop_after": {"steps": 10}},
        }
        for name, section in sections.items():
            both = isinstance(section, dict) and isinstance(values.get(name), dict)
            values[name] = {**values[name], **section} if both else section
        return resolve(Config.model_validate(values))

    return make


WINDOWS = {"name": "windows", "inputs": 2, "outputs": 3}
VORTICITY = {"name": "navier_stokes", "resolution": 16, "num_steps": 10}


@pytest.mark.parametrize(
    ("draw", "expected", "inputs", "outputs"),
    [
        ("samples", Samples(), ["a", "t"], ["u"]),
        ({"name": "samples"}, Samples(), ["a", "t"], ["u"]),
        ("trajectories", Trajectories(10), ["a", "t"], [f"u_{step}" for step in range(10)]),
        ("pairs", Pairs(10, 1), ["a", "t", "u_before"], ["u"]),
        ({"name": "pairs", "stride": 3}, Pairs(10, 3), ["a", "t", "u_before"], ["u"]),
        (WINDOWS, Windows(10, 2, 3), ["a", "t", "u_before_0", "u_before_1"], ["u_0", "u_1", "u_2"]),
    ],
)
def test_what_is_drawn_is_what_model_and_buffer_are_made_for(plan, draw, expected, inputs, outputs):
    chosen = plan(buffer={"draw": draw}, training={"device": "cpu"})
    assert chosen.unit == expected
    surrogate = chosen.surrogate()
    assert [spec.name for spec in surrogate.layout.inputs] == inputs
    assert [spec.name for spec in surrogate.layout.outputs] == outputs
    buffer = chosen.learner(NoStream(), PlainStore()).buffer
    assert buffer.layout == surrogate.layout and buffer.num_units == 200 // expected.num_steps


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        ("singles", "buffer.draw: there is no 'singles'; did you mean 'samples'?"),
        ({"name": "pairs", "strid": 2}, "buffer.draw.strid: unknown key; did you mean 'stride'?"),
        ({"name": "pairs", "stride": 10}, "buffer.draw: the stride of pairs must be between 1 and 9, not 10"),
        ({"name": "pairs", "stride": "two"}, "buffer.draw.stride = 'two': must be an integer"),
        ({"name": "windows", "inputs": 0}, "buffer.draw: inputs of windows must be at least 1, not 0"),
        (
            {"name": "windows", "outputs": 10},
            "buffer.draw: 11 frames 1 apart are more than a simulation has, which is 10",
        ),
        ({"name": "trajectories", "stride": 2}, "buffer.draw.stride: unknown key; known: none"),
    ],
)
def test_a_draw_that_cannot_be_is_one_line(plan, draw, expected):
    assert refusal(lambda: plan(buffer={"draw": draw}).unit).startswith(expected)


def test_windows_of_a_problem_with_feeds_begin_with_its_input_and_may_be_unrolled(plan):
    rollout = {"rollout": {"pushforward": 2, "noise": 0.1}, "device": "cpu"}
    chosen = plan(problem=VORTICITY, buffer={"draw": WINDOWS}, training=rollout)
    assert [spec.name for spec in chosen.batch_layout.inputs] == ["time", "before_0", "before_1"]
    assert chosen.unit.num_windows == 11 - 4 and chosen.unit.num_choices == 11 - 4 - 2 * 3
    learner = chosen.learner(NoStream(), PlainStore())
    assert learner.trainer._step.num_unrolled == learner.buffer.unit.num_unrolled == 3


@pytest.mark.parametrize(
    ("problem", "draw", "rollout", "expected"),
    [
        (VORTICITY, "samples", {"pushforward": 1}, "training.rollout.pushforward: it takes several steps of a"),
        (VORTICITY, WINDOWS, {"pushforward": 3}, "training.rollout.pushforward: 14 frames 1 apart are more than a"),
        (VORTICITY, "trajectories", {"noise": 0.1}, "training.rollout: no input is an output of the step before"),
        (
            {"name": "darcy", "resolution": 16},
            "samples",
            {"noise": 0.1},
            "training.rollout: no input is an output of the step before",
        ),
    ],
)
def test_a_rollout_that_cannot_be_trained_is_one_line(plan, problem, draw, rollout, expected):
    def choose():
        chosen = plan(problem=problem, buffer={"draw": draw}, training={"rollout": rollout})
        chosen.step(chosen.surrogate())

    assert refusal(choose).startswith(expected)


@pytest.mark.parametrize("num_steps", [10.0, 0, -3, "10", None])
def test_a_number_of_steps_that_is_none_is_one_line(plan, tmp_path, num_steps):
    (tmp_path / "transient.py").write_text(TRANSIENT.replace("num_steps = 10", f"num_steps = {num_steps!r}"))
    complaint = refusal(lambda: plan().problem)
    assert complaint.endswith(f"num_steps = {num_steps!r} must be an integer of at least 1")


def test_a_steady_problem_has_no_pairs(plan):
    steady = plan(problem={"name": "darcy", "resolution": 16}, buffer={"draw": "pairs"})
    assert refusal(lambda: steady.unit) == "buffer.draw: pairs need a problem whose num_steps is above 1, not 1"


def test_room_for_a_batch_and_a_simulation_of_each_worker(plan):
    """Ten steps a simulation: 4 of a batch and 2 under way take 60 samples."""
    require_room(plan(buffer={"capacity": 60, "draw": "pairs"}), 2)
    assert "give at least 60" in refusal(require_room, plan(buffer={"capacity": 59, "draw": "pairs"}), 2)
    require_room(plan(buffer={"capacity": 50, "watermark": 50}), 60)  # single samples wait for no others


def test_losses_take_their_options(plan):
    (loss,) = plan(training={"loss": {"name": "sobolev", "order": -1}}).loss().losses.values()
    one = torch.ones(1, 1, 16, 16)
    wave = 2**0.5 * torch.cos(torch.pi * (torch.arange(16) + 0.5) / 16)  # its norm of order -1 is (1 + pi^2)^(-1/2)
    torch.testing.assert_close(loss(one + wave, one), torch.tensor([(1 + torch.pi**2) ** -0.5]))
    assert refusal(plan(training={"loss": "sobolev"}).loss) == "training.loss.order: missing"
    unknown = plan(training={"loss": {"name": "mse", "order": 1}})
    assert refusal(unknown.loss) == "training.loss.order: unknown key; known: none"


def test_losses_are_taken_on_the_problems_domain(plan, tmp_path):
    text = TRANSIENT.replace("Grid((16, 16))", "Grid((16, 16), extent=(4.0, 0.5))")
    (tmp_path / "box.py").write_text(text)
    (loss,) = plan(problem=f"{tmp_path}/box.py:Transient", training={"loss": "h1"}).loss().losses.values()
    one = torch.ones(1, 1, 16, 16)
    wave = 2**0.5 * torch.cos(torch.pi * (torch.arange(16) + 0.5) / 16)  # along the axis of length 1/2
    torch.testing.assert_close(loss(one + wave, one), torch.tensor([(1 + (2 * torch.pi) ** 2) ** 0.5]))
    given = plan(training={"loss": {"name": "h1", "extent": [1, 1]}})
    assert refusal(given.loss) == "training.loss.extent: unknown key; known: relative"


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ({"name": "sobolev", "order": 10}, "training.loss: order 10 on 16 x 16 points goes beyond float32: take a"),
        (
            {"name": "sobolev", "order": 0, "stiffness": 3},
            "training.loss.stiffness: unknown key; known: order, relative",
        ),
        (
            "./losses.py:Mine",
            "training.loss: there is no './losses.py:Mine'; known: h1, mse",
        ),
    ],
)
def test_losses_that_the_problem_has_no_use_for_are_one_line(plan, loss, expected):
    assert refusal(lambda: plan(training={"loss": loss}).loss()).startswith(expected)


def page_policy() -> str:
    """The text of the file that docs/training.md shows."""
    return re.search(r"```python\n(.*?class Hardest.*?)```", (ROOT / "docs" / "training.md").read_text(), re.S)[1]


class Doubling:
    """A worker of the transient problem: u = 2 a, and so large in every tenth simulation that it is never learnt."""

    def stream(self, lease):
        for simulation in lease.simulations:
            random = np.random.default_rng(simulation)
            fields = random.normal(size=(10, 1, 16, 16)).astype(np.float32)
            noise = random.normal(size=fields.shape).astype(np.float32) * (simulation % 10 == 0)
            yield Chunk(
                design=lease.design,
                arrays={"fields": fields, "scalars": np.zeros((10, 1), np.float32), "targets": 2 * fields + 5 * noise},
                simulations=np.full(10, simulation),
                steps=np.arange(10),
                quantiles=np.zeros((10, 1), np.float32),
                finished=(simulation,),
            )


def test_a_policy_from_a_file_trains_and_is_recorded_and_restored(plan, tmp_path, monkeypatch):
    """It lives in the run folder from then on, travels by its source, and draws what is hard more often."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hardest.py").write_text(page_policy())
    chosen = plan(
        buffer={"kind": f"{tmp_path}/hardest.py:Hardest", "capacity": 400, "batches_per_simulation": 10.0},
        training={"device": "cpu", "stop_after": {"steps": 200}},
        validation={"simulations": 1},
    )
    folder = RunFolder.create(chosen.config)
    recorded = yaml.safe_load((folder.path / "config.yaml").read_text())["buffer"]["kind"]
    assert recorded == {"name": "./policy_hardest.py:Hardest", "exponent": 0.5}
    chosen = pickle.loads(pickle.dumps(resolve(folder.config(("buffer.kind.exponent=1.0",)))))
    (tmp_path / "hardest.py").unlink()
    (folder.path / "policy_hardest.py").unlink()
    store = PlainStore(tmp_path / "checkpoints")
    with closing(InProcessStream()) as stream:
        learner = chosen.learner(stream, store)
        stream.submit(Lease(number=0, simulations=(1,), design="validation"), Doubling())
        stream.submit(Lease(number=1, simulations=tuple(range(30))), Doubling())
        assert learner.run() == "steps"
    policy, contents = learner.buffer.policy, learner.buffer.contents()
    assert policy.exponent == 1.0 and len(set(policy.losses.tolist())) > 20
    is_hard = contents.simulations % 10 == 0
    assert contents.num_seen[is_hard].mean() > 2 * contents.num_seen[~is_hard].mean()
    restored = chosen.learner(NoStream(), store).buffer.policy
    np.testing.assert_array_equal(restored.losses, policy.losses)


POLICIES = """
from penstock.learner.buffers.policies import Policy, Reservoir


class Mine(Reservoir):
    def __init__(self, share: float = 0.5):
        if not 0 < share < 1:
            raise ValueError("share must be between 0 and 1")


class Unfinished(Policy):
    pass


class Other:
    pass
"""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("stack", "buffer.kind: there is no 'stack'; known: fifo, firo, reservoir (your own: ./file.py:Class"),
        ("reservoi", "buffer.kind: there is no 'reservoi'; did you mean 'reservoir'?"),
        ({"name": "reservoir", "share": 1}, "buffer.kind.share: unknown key; known: none"),
        ("own_policies:Other", "buffer.kind: 'own_policies:Other' must be a subclass of penstock.learner.buffers."),
        ("own_policies:Unfinished", "buffer.kind: Can't instantiate abstract class Unfinished without an"),
        ({"name": "own_policies:Mine", "share": "half"}, "buffer.kind.share = 'half': must be a number"),
        ({"name": "own_policies:Mine", "share": 2.0}, "buffer.kind: share must be between 0 and 1"),
        ("./absent.py:Mine", "buffer.kind: can't read ./absent.py: No such file or directory"),
    ],
)
def test_a_policy_that_cannot_be_is_one_line(plan, tmp_path, monkeypatch, kind, expected):
    (tmp_path / "own_policies.py").write_text(POLICIES)
    monkeypatch.syspath_prepend(tmp_path)
    assert refusal(lambda: plan(buffer={"kind": kind}).policy()).startswith(expected)


def test_a_policy_is_fixed_on_resume(plan):
    before = plan(buffer={"kind": "fifo"})
    plan(buffer={"kind": {"name": "fifo"}}).require_continues(before)
    with pytest.raises(PenstockError, match=r"buffer\.kind can't change on resume"):
        plan().require_continues(before)


MODEL = """
from torch import nn


class Mine(nn.Module):
    def __init__(self, layout):
        super().__init__()
        self.map = nn.LazyLinear(16)

    def forward(self, fields, scalars):
        {body}
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("return self.map(fields)[:, 0]", r"model: \S+:Mine gives \[2, 16, 16\] for two .* must give \[2, 1, 16, 16\]"),
        ("return self.map(fields).expand(-1, 3, -1, -1)", r"gives \[2, 3, 16, 16\] for"),
        (
            "return self.map(fields) + scalars",
            r"model: two samples can.t .*RuntimeError: .*mine\.py, line 11\)",
        ),
    ],
)
def test_models_whose_outputs_do_not_fit_are_refused(plan, tmp_path, body, expected):
    """In the loss they would be broadcast to the targets, train, and learn nothing."""
    (tmp_path / "mine.py").write_text(MODEL.format(body=body))
    message = refusal(plan(model=f"{tmp_path}/mine.py:Mine").surrogate)
    assert re.search(expected, message), message


def test_a_model_comes_back_in_the_modes_and_with_the_statistics_that_it_was_built_with(plan, tmp_path):
    """It is tried out on two samples before a run."""
    parts = "nn.LazyLinear(16), nn.Dropout(), nn.BatchNorm2d(1), nn.BatchNorm2d(1).eval()"
    body = "return self.map(fields)"
    (tmp_path / "mine.py").write_text(MODEL.format(body=body).replace("nn.LazyLinear(16)", f"nn.Sequential({parts})"))
    chosen = plan(model=f"{tmp_path}/mine.py:Mine")
    torch.manual_seed(0)
    model = chosen.surrogate().model
    assert [part.training for part in model.map] == [True, True, True, False]
    assert all(part.num_batches_tracked == 0 for part in model.map[2:])


NORMED = """
from torch import nn


class Mine(nn.Module):
    def __init__(self, layout):
        super().__init__()
        self.map, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm1d(1)

    def forward(self, fields, scalars):
        return self.map(fields) + self.norm(scalars)[:, :, None, None]
"""


def test_a_model_is_rehearsed_with_the_sizes_of_batches_that_its_run_may_meet(plan, tmp_path):
    """The last batch of a drained buffer may be one sample, of which BatchNorm1d has no variance."""
    (tmp_path / "normed.py").write_text(NORMED)
    own = {"model": f"{tmp_path}/normed.py:Mine"}
    assert plan(**own).rehearse(tmp_path) == []
    drained = plan(**own, training={"stop_after": {"simulations": 10}})
    refused = refusal(drained.rehearse, tmp_path)
    assert re.match(r"model: a training step on one sample fails: ValueError: .*normed\.py, line 11\)", refused)
    micro = plan(**own, training={"batch_size": 4, "micro_batch_size": 3})
    assert "a training step on 4 samples fails: ValueError" in refusal(micro.rehearse, tmp_path)


def test_a_validation_takes_no_more_samples_at_once_than_training(plan):
    shapes = plan().surrogate().layout.shapes
    arrays = {name: np.zeros((20, *shape), np.float32) for name, shape in shapes.items()}
    sizes = [
        plan(training=training).validation(arrays, "cpu").batch_size
        for training in ({}, {"micro_batch_size": 2}, {"batch_size": 32})
    ]
    assert sizes == [4, 2, 16]


def test_a_buffer_on_the_device_leaves_training_what_it_needs():
    GB = 10**9
    weights = GB  # gradients, moments and the validation's weights take 4 GB of 20, averaged ones 1 GB more
    assert fits_beside_training(8 * GB, 20 * GB, weights, is_averaged=False)
    assert not fits_beside_training(8 * GB, 20 * GB, weights, is_averaged=True)
    assert fits_beside_training(7 * GB, 20 * GB, weights, is_averaged=True)
    assert not fits_beside_training(1, 4 * GB, weights, is_averaged=False)  # nor where training itself barely fits


@pytest.mark.parametrize("draw", ["samples", "pairs", {"name": "pairs", "stride": 3}, "trajectories", WINDOWS])
def test_the_size_of_a_validation_set_is_that_of_its_arrays(plan, draw):
    chosen = plan(buffer={"draw": draw}, validation={"simulations": 7})
    layout = chosen.problem.layout
    simulations, steps = np.divmod(np.arange(70), 10)
    samples = {name: np.zeros((70, *shape), np.float32) for name, shape in layout.shapes.items()}
    arrays, numbers, _ = chosen.unit.all_rows(samples, layout, simulations, steps)
    num_rows, row_bytes = validation_size(chosen)
    assert num_rows == len(numbers) and num_rows * row_bytes == sum(array.nbytes for array in arrays.values())


def test_devices_and_placements_that_are_not_here_are_named(plan):
    for name in ("mps", "meta", "gpu", "cpu:x"):
        assert refusal(pick_device, name).startswith(f"training.device: there is no {name!r}; give auto, cpu")
    assert pick_device("cpu") == torch.device("cpu")
    on_device = plan(buffer={"placement": "device"}, training={"device": "cpu"})
    require_placement(on_device, torch.device("cuda"))
    for function in (
        lambda: require_placement(on_device, torch.device("cpu")),
        lambda: on_device.learner(NoStream(), PlainStore()),
    ):
        assert refusal(function).startswith("buffer.placement: 'device' was asked for and training runs on the CPU")
    for placement in ("auto", "host"):
        chosen = plan(buffer={"placement": placement}, training={"device": "cpu"})
        buffer = chosen.learner(NoStream(), PlainStore()).buffer
        assert buffer.storage.device.type == "cpu" and not buffer.storage.is_pinned


def test_a_buffer_beyond_the_machines_memory_is_named(plan):
    chosen = plan(buffer={"capacity": 10**11}, training={"device": "cpu"})
    assert "buffer.capacity: 100000000000 samples of 2.15 kB take 215 TB, and " in refusal(
        chosen.learner, NoStream(), PlainStore()
    )


def test_a_buffer_beyond_a_gpus_memory_is_named_with_what_would_fit(plan, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 2 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "this GPU")
    chosen = plan(buffer={"capacity": 10**6, "placement": "device"})
    text = refusal(make_buffer, chosen, torch.device("cuda"), 0)
    assert text == (
        "buffer.capacity: 1000000 samples of 2.15 kB take 2.15 GB, and this GPU has 1 GB free: at most 464684 fit"
    )


def test_a_deterministic_run_draws_in_lockstep(plan):
    solver = {"workers": 2, "strategy": "direct", "sort": True}
    chosen = plan(deterministic=True, solver=solver, training={"device": "cpu"})
    learner = chosen.learner(NoStream(), PlainStore())
    assert isinstance(learner.trainer.feed, Lockstep) and isinstance(learner.ingest.stream, Lanes)
