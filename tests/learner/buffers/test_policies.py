"""What a policy is asked and told, what it may not do, and one that goes by losses."""

import numpy as np
import pytest
import torch

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import POLICIES, Fifo, Policy, Reservoir
from penstock.learner.buffers.slots import SlotQueue, SlotSet
from penstock.learner.buffers.units import Samples, Trajectories
from penstock.learner.buffers.windows import Pairs
from penstock.learner.checkpoints import checkpoint

pytestmark = pytest.mark.usefixtures("watermark_of_samples")

LAYOUT = Layout((FieldSpec(name="a", on=Grid((3,))),), (FieldSpec(name="u", on=Grid((3,))),))


class ByLoss(Reservoir):
    """Draws in proportion to the last losses, and weighs rows by the inverse."""

    def begin(self, table):
        super().begin(table)
        self.losses = np.ones(len(table))

    def choose(self, batch_size):
        idle = self.idle
        p = self.losses[idle] / self.losses[idle].sum()
        at = self.random.choice(len(idle), min(batch_size, len(idle)), replace=False, p=p)
        self.inverse = 1 / (len(idle) * p[at])
        self.remove(idle[at])
        return idle[at]

    def weights(self, slots):
        return self.inverse

    def observe(self, slots, losses):
        self.losses[slots] = losses

    def state(self):
        return {"losses": torch.from_numpy(self.losses), "name": "by loss"}

    def load_state(self, state):
        assert state["name"] == "by loss"
        self.losses[:] = state["losses"].numpy()


class Newest(Policy):
    """The units that came last: all that a policy has to say."""

    def choose(self, batch_size):
        newest = self.idle[np.argsort(self.table.arrivals[self.idle])][-batch_size:]
        self.remove(newest)
        return newest


def new(policy, **options):
    return Buffer(LAYOUT, policy, **{"capacity": 12, "watermark": 4, "seed": 0, **options})


def put(buffer, simulations, steps=None):
    simulations = np.array(simulations, np.int64)
    values = np.ones((len(simulations), 1, 3), np.float32) * simulations[:, None, None]
    steps = np.zeros_like(simulations) if steps is None else steps
    return buffer.put_now({"fields": values, "targets": values}, simulations, steps)


@pytest.mark.parametrize("draw", [Samples(), Trajectories(3), Pairs(3)])
@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_a_batch_names_the_slots_of_its_rows(kind, draw):
    buffer = new(POLICIES[kind](), unit=draw)
    simulations, steps = np.divmod(np.arange(12), 3)
    put(buffer, simulations, steps)
    for _ in range(2):
        batch = buffer.draw(2, 0.0)
        assert batch.slots.dtype == np.int64 and len(set(batch.slots.tolist())) == 2 and batch.weights is None
        np.testing.assert_array_equal(buffer.table.simulations[batch.slots], batch.simulations)


def test_a_policy_says_which_units_are_drawn_and_inherits_the_rest():
    buffer = new(Newest())
    put(buffer, range(12))
    assert sorted(buffer.draw(5, 0.0).simulations.tolist()) == [7, 8, 9, 10, 11]
    assert put(buffer, range(12, 20)) == 5  # each leaves once it was drawn, and arrivals take free slots alone
    assert sorted(buffer.draw(5, 0.0).simulations.tolist()) == [12, 13, 14, 15, 16]
    buffer.end_of_stream()
    drained = []
    while not buffer.exhausted:
        drained += buffer.draw(5, 0.0).simulations.tolist()
    assert sorted(drained) == list(range(7))


@pytest.mark.parametrize("kind", [*POLICIES.values(), Newest])
def test_what_does_not_observe_is_told_nothing(kind):
    assert not kind().observes and ByLoss().observes


def test_weights_undo_what_a_draw_prefers():
    """Of values x drawn by p the mean of x / (n p) is that of all x; p itself is seen in the counts."""
    buffer = new(ByLoss(), capacity=4)
    put(buffer, range(4))
    buffer.policy.losses[buffer.table.simulations] = [1.0, 2.0, 3.0, 4.0]  # of simulations 0 to 3
    batches = [buffer.draw(1, 0.0) for _ in range(4000)]
    drawn = np.array([batch.simulations[0] for batch in batches])
    weights = torch.cat([batch.weights for batch in batches])
    assert weights.dtype == torch.float32 and weights.shape == (4000,)
    np.testing.assert_allclose(np.bincount(drawn) / 4000, [0.1, 0.2, 0.3, 0.4], atol=0.03)
    assert weights.numpy() @ drawn / 4000 == pytest.approx(1.5, abs=0.06)
    assert weights.mean().item() == pytest.approx(1.0, abs=0.06)


def test_a_policy_hears_of_the_rows_whose_units_are_still_in():
    heard = []

    class Hearing(Reservoir):
        def observe(self, slots, losses):
            heard.append(dict(zip(self.table.simulations[slots].tolist(), losses.tolist(), strict=True)))

    buffer = new(Hearing(), capacity=8)
    put(buffer, range(8))
    batch = buffer.draw(4, 0.0)
    losses = torch.tensor([0.5, 1.5, 2.5, 3.5])
    buffer.observe(batch, losses)
    assert heard.pop() == dict(zip(batch.simulations.tolist(), losses.tolist(), strict=True))
    assert put(buffer, [100, 101, 102]) == 3  # in the places of three that were seen
    buffer.observe(batch, losses)
    (left,) = set(batch.simulations.tolist()) & set(buffer.simulations_in().tolist())
    assert heard.pop() == {left: losses[batch.simulations.tolist().index(left)].item()}
    buffer.end_of_stream()
    buffer.observe(buffer.draw(8, 0.0), torch.ones(8))  # all have left
    assert heard == [{}]


def test_of_trajectories_a_policy_hears_by_unit():
    buffer = new(ByLoss(), unit=Pairs(3))
    put(buffer, *np.divmod(np.arange(12), 3))
    batch = buffer.draw(4, 0.0)
    assert batch.steps.any()
    buffer.observe(batch, torch.arange(4.0))
    assert buffer.policy.losses[batch.slots].tolist() == [0, 1, 2, 3]


def test_what_a_policy_knows_is_saved_with_its_buffer(tmp_path):
    buffer, other = new(ByLoss()), new(ByLoss())
    put(buffer, range(12))
    for _ in range(3):
        batch = buffer.draw(4, 0.0)
        buffer.observe(batch, torch.from_numpy(batch.simulations + 0.5))
    state = buffer.state()
    expected = [buffer.draw(4, 0.0).simulations.tolist() for _ in range(3)]
    buffer.observe(batch, torch.full((4,), 9.0))  # what comes later is not in it
    checkpoint.save(tmp_path, 0, weights={}, optimizer={}, buffer=state, meta={}, keep=1)
    other.load_state(checkpoint.load(tmp_path).buffer)
    assert 9.0 not in other.policy.losses and other.policy.losses.max() > 1.0
    assert [other.draw(4, 0.0).simulations.tolist() for _ in range(3)] == expected


def test_a_policy_that_breaks_its_word_is_named():
    class Keeping(Reservoir):
        def choose(self, batch_size):
            return self.idle[:batch_size]

    class Greedy(Fifo):
        def choose(self, batch_size):
            return super().choose(batch_size + 1)

    class Idle(Fifo):
        def choose(self, batch_size):
            return super().choose(0)

    class Square(Fifo):
        def weights(self, slots):
            return np.ones((len(slots), 1))

    for policy, expected in (
        (Keeping(), r"Keeping.choose\(4\) returned 4 slots, and 0 are idle no longer: it must return 1 to 4 idle"),
        (Greedy(), r"Greedy.choose\(4\) returned 5 slots, and 5 are idle no longer"),
        (Idle(), r"Idle.choose\(4\) returned 0 slots"),
        (Square(), r"Square.weights\(\) gave the shape \(4, 1\) for \(4,\) slots"),
    ):
        buffer = new(policy)
        put(buffer, range(12))
        with pytest.raises(RuntimeError, match=expected):
            buffer.draw(4, 0.0)


@pytest.mark.parametrize("kind", [SlotQueue, lambda: SlotSet(20)])
def test_slots_are_removed_wherever_they_are(kind):
    slots = kind()
    slots.add(np.arange(10, 18))
    slots.remove(np.array([17, 3, 12]))
    assert slots.slots.tolist() == [10, 11, 13, 14, 15, 16] and len(slots) == 6
