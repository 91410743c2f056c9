"""The loop learns, follows its schedule, stops for each cause, loses no sample, and resumes bit for bit."""

import itertools
import random

import numpy as np
import pytest
import torch

from penstock.errors import PenstockError
from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.buffers.buffer import Buffer
from penstock.learner.buffers.policies import Fifo, Firo, Reservoir
from penstock.learner.buffers.units import Trajectories
from penstock.learner.buffers.windows import Pairs
from penstock.learner.checkpoints import checkpoint
from penstock.learner.checkpoints.writer import Writer
from penstock.learner.feed.feed import Feed
from penstock.learner.losses.losses import LOSSES, TotalLoss
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.normalization import Normalization
from penstock.learner.optimization import Optimization
from penstock.learner.schedules import Schedule
from penstock.learner.settings import Settings, StopAfter
from penstock.learner.stream.ingest import Ingest
from penstock.learner.stream.lockstep import Lockstep
from penstock.learner.stream.rate_limiter import RateLimiter
from penstock.learner.surrogate import Surrogate
from penstock.learner.trainer import Trainer
from penstock.learner.validation.course import ValidationCourse
from penstock.learner.validation.validation import Validation
from penstock.messages import Chunk
from tests.support.learners import NoStream

pytestmark = pytest.mark.usefixtures("watermark_of_samples")

LAYOUT = Layout((FieldSpec(name="a", on=Grid((16, 16))),), (FieldSpec(name="u", on=Grid((16, 16))),))


def smoothing(count, seed):
    """a -> the solution of u - 0.01 Δu = a on the torus, by FFT, offset and scaled as physical quantities are."""
    k = 2 * np.pi * np.fft.fftfreq(16, 1 / 16)
    symbol = 1 / (1 + 0.01 * (k[:, None] ** 2 + k**2))
    a = np.random.default_rng(seed).normal(size=(count, 1, 16, 16))
    u = np.fft.ifft2(symbol * np.fft.fft2(a)).real
    return {"fields": (7 + 3 * a).astype(np.float32), "targets": (1e-3 * (2 + u)).astype(np.float32)}


def chunk(arrays, first=0):
    """A simulation a sample, numbered from `first`."""
    numbers = np.arange(first, first + len(arrays["fields"]))
    return Chunk(arrays=arrays, simulations=numbers, steps=np.zeros_like(numbers), finished=tuple(numbers.tolist()))


class NotingStep(Optimization):
    """A step that notes what it was given and the weights that it left."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.batches, self.weights = [], [self.copied_weights()]

    def copied_weights(self):
        return {name: parameter.detach().clone() for name, parameter in self.surrogate.named_parameters()}

    def __call__(self, arrays, learning_rate, weights=None):
        loss = super().__call__(arrays, learning_rate, weights)
        self.batches.append({name: array.numpy().copy() for name, array in arrays.items()})
        self.weights.append(self.copied_weights())
        return loss


def new_trainer(
    stop_after,
    *,
    kind=Reservoir,
    watermark=16,
    num_samples=64,
    seed=0,
    batch_size=8,
    depth=None,
    limiter=None,
    step=Optimization,
    learning_rate=5e-3,
    loss="relative_l2",
    ema_decay=None,
    device="cpu",
    validation=None,
    checkpoint=None,
    **options,
):
    """checkpoint: called with the trainer where one would be saved."""
    torch.manual_seed(seed)
    buffer = Buffer(LAYOUT, kind(), capacity=64, watermark=watermark, seed=seed, device=device)
    ingest = Ingest(NoStream(), buffer, LAYOUT, limiter)
    if num_samples:
        ingest.take(chunk(smoothing(num_samples, seed=1)))
    model = FNO(LAYOUT, width=8, modes=6, layers=2)
    surrogate = Surrogate(model, Normalization.identity(LAYOUT), LAYOUT).to(device)
    step = step(surrogate, loss=TotalLoss(LAYOUT, LOSSES[loss]), learning_rate=learning_rate, ema_decay=ema_decay)
    feed = Feed(buffer, device, batch_size, limiter, depth=depth)
    settings = Settings(batch_size=batch_size, stop_after=stop_after, **options)
    trainer = Trainer(step, feed, ingest, settings, course=ValidationCourse(validation))
    trainer.saver = None if checkpoint is None else Noted(trainer, checkpoint)
    return trainer


class Noted:
    """Saves nothing, and says when."""

    is_writing = False

    def owes(self):
        return False

    def __init__(self, trainer, checkpoint):
        self.trainer, self.checkpoint = trainer, checkpoint

    def save(self, step, state_of):
        assert step == self.trainer.step
        self.checkpoint(self.trainer)


def never():
    return False


def relative_l2(surrogate, arrays):
    """Mean over the samples, by NumPy."""
    with torch.no_grad():
        prediction = surrogate.predict({name: torch.from_numpy(array) for name, array in arrays.items()})[
            "targets"
        ].numpy()
    error, target = ((prediction - arrays["targets"]).reshape(len(prediction), -1), arrays["targets"])
    return np.mean(np.linalg.norm(error, axis=1) / np.linalg.norm(target.reshape(len(target), -1), axis=1))


@pytest.mark.parametrize("loss", ["relative_l2", "mse"])
def test_a_linear_operator_is_learnt(loss):
    held_out = smoothing(32, seed=2)
    trainer = new_trainer(StopAfter(steps=150), loss=loss, validation=Validation(held_out, LAYOUT))
    assert trainer.run(never) == "steps"
    assert trainer.step == 150 and trainer.num_trained == 1200
    errors = trainer.validation_errors["relative_l2"]
    assert errors["mean"] == pytest.approx(relative_l2(trainer.surrogate, held_out), rel=1e-4) and errors["mean"] < 0.05
    assert errors["median"] <= errors["p99"] <= errors["max"]


def test_a_run_is_the_loop_that_one_would_write():
    """Draws by the buffer, all else by hand: normalisation, loss, schedule, AdamW, and the mean of the losses."""
    trainer = new_trainer(StopAfter(steps=40))
    assert trainer.run(never) == "steps"

    arrays = smoothing(64, seed=1)
    mean = {name: float(array.mean(dtype=np.float64)) for name, array in arrays.items()}
    std = {name: float(array.std(dtype=np.float64)) for name, array in arrays.items()}
    buffer = Buffer(LAYOUT, Reservoir(), capacity=64, watermark=16, seed=0)
    buffer.put_now(arrays, np.arange(64), np.zeros(64, np.int64))
    torch.manual_seed(0)
    model = FNO(LAYOUT, width=8, modes=6, layers=2)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-4)
    mean_loss = None
    for done in np.arange(40) / 40:
        rate = 0.1 + 0.9 * done / 0.04 if done < 0.04 else 0.5 * (1 + np.cos(np.pi * (done - 0.04) / 0.96))
        optimizer.param_groups[0]["lr"] = 5e-3 * rate
        batch = buffer.draw(8, 0.0).arrays
        prediction = model((batch["fields"] - mean["fields"]) / std["fields"]) * std["targets"] + mean["targets"]
        error = (prediction - batch["targets"]).square().sum(dim=(1, 2, 3)).sqrt()
        loss = (error / batch["targets"].square().sum(dim=(1, 2, 3)).sqrt()).mean()
        optimizer.zero_grad()
        (loss * np.hypot(mean["targets"], std["targets"]) / std["targets"]).backward()  # of it AdamW sees its epsilon
        optimizer.step()
        mean_loss = loss.item() if mean_loss is None else 0.98 * mean_loss + 0.02 * loss.item()
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, trainer.surrogate.model.get_parameter(name), rtol=0, atol=5e-6), name
    assert trainer.loss == pytest.approx(mean_loss, rel=1e-5)


def test_progress_is_the_largest_part_done():
    stop_after = StopAfter(minutes=10, steps=100, samples=400, simulations=1000, error=0.01)
    assert stop_after.progress(minutes=1, steps=20, samples=80, simulations=500) == 0.5
    assert stop_after.progress(minutes=1, steps=90, samples=80, simulations=500) == 0.9
    assert stop_after.progress(minutes=1, steps=20, samples=300, simulations=500) == 0.75
    assert stop_after.progress(minutes=11, steps=0, samples=0, simulations=0) == 1.0
    with pytest.raises(ValueError, match="one of minutes, steps, samples, simulations"):
        StopAfter(error=0.1)
    with pytest.raises(ValueError, match=r"stop_after\.steps must be above 0"):
        StopAfter(steps=0)


def test_each_limit_is_a_cause():
    assert new_trainer(StopAfter(minutes=0.5 / 60)).run(never) == "minutes"
    validation = Validation(smoothing(8, seed=2), LAYOUT)
    trainer = new_trainer(StopAfter(steps=2000, error=0.5), validation=validation, validation_every_s=0.1)
    assert (
        trainer.run(never) == "error"
        and trainer.validation_errors["relative_l2"]["mean"] <= 0.5
        and trainer.step < 2000
    )
    trainer = new_trainer(StopAfter(samples=30))
    assert trainer.run(never) == "samples"
    assert trainer.buffer.num_put - trainer.buffer.num_unseen >= 30 and trainer.step >= 4
    for stop_after in (StopAfter(steps=2000), StopAfter(simulations=64)):
        trainer = new_trainer(stop_after)
        trainer.buffer.end_of_stream()
        assert trainer.run(never) == "stream ended" and trainer.num_trained == 64


class SlowClock:
    """time.monotonic, to which steps add what they are said to take."""

    def __init__(self):
        self.seconds = 0.0

    def monotonic(self):
        return self.seconds


def test_compiling_is_no_training_time(monkeypatch):
    """A step that takes a minute to compile and then 0.1 s: limits and schedule in minutes are of the latter."""
    clock = SlowClock()
    monkeypatch.setattr("penstock.learner.trainer.time", clock)
    monkeypatch.setattr("penstock.learner.stream.timesheet.time", clock)

    class CompiledStep(NotingRates):
        compiles_next = True

        def __call__(self, *arguments):
            clock.seconds += 60.0 if self.compiles_next else 0.1
            assert trainer.state == ("compiling the step" if self.compiles_next else "training")
            self.compiles_next = False
            return super().__call__(*arguments)

    trainer = new_trainer(StopAfter(minutes=2 / 60), step=CompiledStep, schedule=Schedule(warm_up=0.0))
    assert trainer.run(never) == "minutes"
    assert trainer.step == 21 and trainer.train_seconds == pytest.approx(2.0)
    assert trainer.times == pytest.approx({"compiling": 60.0, "training": 2.0, "aside": 0.0})
    expected = [5e-3 * 0.5 * (1 + np.cos(np.pi * 0.1 * max(0, n - 1) / 2)) for n in range(21)]
    np.testing.assert_allclose(trainer._step.rates, expected, rtol=1e-6)


def test_a_schedule_that_is_over_before_the_run_is_said():
    trainer = new_trainer(StopAfter(steps=10), schedule=Schedule(steps=10))
    trainer.run(never)
    assert trainer.warning is None
    trainer = new_trainer(StopAfter(steps=20), schedule=Schedule(steps=10))
    trainer.run(never)
    assert trainer.warning.startswith("training.schedule is over and the learning rate 0")


def test_a_loss_that_explodes_is_said_and_the_run_goes_on(monkeypatch):
    monkeypatch.setattr("penstock.learner.trainer.LOSS_READ_EVERY_S", 0.0)

    class Exploding(Optimization):
        def __call__(self, *arguments):
            return super().__call__(*arguments) * (1e3 if self.num_steps > 50 else 1.0)

    trainer = new_trainer(StopAfter(steps=300), step=Exploding)
    assert trainer.run(never) == "steps"
    assert trainer.warning.startswith("training diverges: its loss was ")
    assert "lower training.learning_rate (it is 0.005)" in trainer.warning and "training.clip_norm" in trainer.warning


def test_the_learning_rate_follows_a_schedule_of_its_own_length():
    trainer = new_trainer(StopAfter(steps=20), schedule=Schedule(shape="constant", warm_up=0.5, steps=20))
    trainer.run(lambda: trainer.step >= 6)
    assert trainer.learning_rate == pytest.approx(5e-3 * (0.1 + 0.9 * 0.5))  # the sixth step, a quarter of the way
    trainer = new_trainer(StopAfter(steps=30), schedule=Schedule(samples=1000, warm_up=0.0))
    trainer.run(never)
    drawn = 64 - trainer.buffer.num_unseen  # before the last step as well: 30 batches of 8 leave nothing of 64 unseen
    assert trainer.learning_rate == pytest.approx(5e-3 * 0.5 * (1 + np.cos(np.pi * drawn / 1000)), rel=1e-3)


class Hearing(Reservoir):
    """Weighs rows by two numbers in turn, and notes what it receives."""

    def begin(self, table):
        super().begin(table)
        self.heard = []

    def weights(self, slots):
        return np.resize([0.5, 1.5], len(slots))

    def observe(self, slots, losses):
        self.heard.append((self.table.simulations[slots].tolist(), losses.tolist()))


def test_rows_are_weighed_and_a_policy_hears_their_losses_after_each_step():
    noted = []

    class Noting(Optimization):
        def __call__(self, arrays, learning_rate, weights):
            loss = super().__call__(arrays, learning_rate, weights)
            noted.append((loss.item(), weights.tolist(), self.row_losses.tolist()))
            return loss

    trainer = new_trainer(StopAfter(steps=12), kind=Hearing, step=Noting)
    trainer.run(never)
    heard = trainer.buffer.policy.heard
    assert len(heard) == len(noted) == 12
    for (simulations, losses), (loss, weights, row_losses) in zip(heard, noted, strict=True):
        assert len(set(simulations)) == 8 and losses == row_losses and weights == [0.5, 1.5] * 4
        assert loss == pytest.approx(np.mean(np.multiply(weights, row_losses)), rel=1e-5)


class NotingRates(Optimization):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.rates = []

    def __call__(self, arrays, learning_rate, weights=None):
        self.rates.append(learning_rate)
        return super().__call__(arrays, learning_rate, weights)


@pytest.mark.parametrize("kind", [Fifo, Firo, Reservoir])
@pytest.mark.parametrize("depth", [0, 2])
def test_the_learning_rate_comes_down_over_the_drain_and_not_before_it(kind, depth):
    trainer = new_trainer(StopAfter(simulations=64), kind=kind, step=NotingRates, depth=depth)

    def end_the_stream_after_24_steps():
        if trainer.step == 24 or kind is not Reservoir:
            trainer.buffer.end_of_stream()
        return False

    assert trainer.run(end_the_stream_after_24_steps) == "stream ended" and trainer.progress == 1.0
    rates = np.array(trainer._step.rates)
    step = np.arange(len(rates))
    if depth == 0:
        to_drain = np.where((kind is Reservoir) & (step < 24), 8, len(rates) - 1 - step)
        expected = [5e-3 * Schedule()(value) for value in step / (step + 1 + to_drain)]
        np.testing.assert_allclose(rates, expected, rtol=1e-9)
    assert (rates > 0).all() and rates[-1] < 0.2 * rates.max()


@pytest.mark.parametrize("kind", [Fifo, Firo, Reservoir])
def test_the_drain_of_pairs_is_planned_by_rows(kind):
    arrays, num_steps = smoothing(60, seed=1), 6
    buffer = Buffer(LAYOUT, kind(), capacity=60, watermark=6, seed=0, unit=Pairs(num_steps))
    ingest = Ingest(NoStream(), buffer, LAYOUT)
    simulations, steps = np.divmod(np.arange(60), num_steps)
    ingest.take(Chunk(arrays=arrays, simulations=simulations, steps=steps, finished=tuple(range(10))))
    buffer.end_of_stream()
    model = FNO(buffer.layout, width=4, modes=3, layers=1)
    surrogate = Surrogate(model, Normalization.identity(buffer.layout), buffer.layout)
    step = NotingRates(surrogate, loss=TotalLoss(LAYOUT, LOSSES["mse"]), learning_rate=1e-3)
    settings = Settings(batch_size=2, stop_after=StopAfter(simulations=10))
    trainer = Trainer(step, Feed(buffer, "cpu", 2), ingest, settings)
    assert trainer.run(never) == "stream ended"
    num_batches = 5 if kind is Reservoir else 25  # it removes a simulation with its first row, the others with the last
    expected = [1e-3 * Schedule()(done / num_batches) for done in range(num_batches)]
    np.testing.assert_allclose(step.rates, expected, rtol=1e-9)


class Hesitant(NoStream):
    """An ordered stream of a simulation a chunk that often gives nothing in time."""

    def __init__(self, num_simulations, luck):
        self.arrays, self.luck, self.position = smoothing(num_simulations, seed=1), luck, 0

    @property
    def has_ended(self):
        return self.position == len(self.arrays["fields"])

    def acknowledge(self):
        self.position += 1

    def next(self, timeout_s):
        if self.has_ended or (self.luck and self.luck.random() < 0.5):
            return None
        rows = slice(self.position, self.position + 1)
        return chunk({name: array[rows] for name, array in self.arrays.items()}, first=self.position)


@pytest.mark.parametrize("stop_after", [{"simulations": 60}, {"samples": 60}, {"steps": 14}])
@pytest.mark.parametrize("kind", [Fifo, Reservoir])
def test_in_lockstep_the_learning_rate_does_not_depend_on_time(kind, stop_after):
    def rates(luck):
        torch.manual_seed(0)
        buffer, limiter = Buffer(LAYOUT, kind(), capacity=24, watermark=8, seed=0), RateLimiter(0.25)
        ingest = Ingest(Hesitant(60, luck), buffer, LAYOUT, limiter)
        model = FNO(LAYOUT, width=4, modes=3, layers=1)
        step = NotingRates(
            Surrogate(model, Normalization.identity(LAYOUT), LAYOUT),
            loss=TotalLoss(LAYOUT, LOSSES["mse"]),
            learning_rate=1e-2,
        )
        settings = Settings(batch_size=4, stop_after=StopAfter(**stop_after))
        Trainer(step, Lockstep(ingest, "cpu", 4), ingest, settings).run(never)
        return step.rates, [parameter.detach().numpy() for parameter in model.parameters()]

    (expected, weights), *others = [rates(luck) for luck in (None, random.Random(1), random.Random(2))]
    for found, found_weights in others:
        assert found == expected
        assert all((a == b).all() for a, b in zip(found_weights, weights, strict=True))


def test_a_request_stops_at_the_next_step_and_saves_without_validating():
    saved = []
    trainer = new_trainer(
        StopAfter(steps=10**6),
        checkpoint=lambda t: saved.append(t.step),
        validation=Validation(smoothing(4, seed=2), LAYOUT),
    )
    assert trainer.run(lambda: trainer.step >= 30) == "stopped"
    assert saved == [trainer.step] == [30] and trainer.validation_errors is None and trainer.state == "ended"


def test_a_request_while_waiting_for_samples_ends_at_once():
    trainer, calls = new_trainer(StopAfter(steps=10), num_samples=4), itertools.count()
    assert trainer.run(lambda: next(calls) >= 1) == "stopped"
    assert trainer.step == 0 and trainer.learner_wait_seconds == 0


def test_waits_for_samples_are_counted():
    trainer = new_trainer(StopAfter(steps=2), kind=Fifo, watermark=8, num_samples=8)

    def put_once_it_has_waited():
        if trainer.learner_wait_seconds > 0.1 and trainer.buffer.num_put == 8:
            trainer.ingest.take(chunk(smoothing(8, seed=3), first=8))
        return False

    assert trainer.run(put_once_it_has_waited) == "steps"
    assert 0.1 < trainer.learner_wait_seconds <= trainer.train_seconds


def test_a_long_warm_up_is_saved():
    saved = []
    trainer = new_trainer(
        StopAfter(steps=1), num_samples=4, checkpoint=lambda t: saved.append(t.buffer.num_put), checkpoint_every_s=0.05
    )
    trainer.run(lambda: len(saved) >= 2)
    assert saved == [4, 4, 4]  # and once more at the end


def test_checkpoints_come_in_their_interval_with_the_errors_of_their_weights():
    held_out, saved = smoothing(4, seed=2), []

    def save(trainer):
        state = trainer.checkpoint_state()
        saved.append((state["meta"]["validation"]["relative_l2"]["mean"], relative_l2(trainer.surrogate, held_out)))

    trainer = new_trainer(
        StopAfter(steps=10**6), validation=Validation(held_out, LAYOUT), checkpoint=save, checkpoint_every_s=0.1
    )
    trainer.run(lambda: len(saved) == 3)
    for written, expected in saved:
        assert written == pytest.approx(expected, rel=1e-4)


def test_validation_in_slices_has_the_errors_of_the_weights_it_began_with():
    held_out, found = smoothing(20, seed=2), {}
    trainer = new_trainer(
        StopAfter(steps=60),
        step=NotingStep,
        validation=Validation(held_out, LAYOUT, batch_size=4),
        validation_every_s=0.0,
    )

    def note():
        state = trainer.checkpoint_state(with_buffer=False)["meta"]["training"]
        if state["validation_errors"] is not None:
            found[state["validated_step"]] = state["validation_errors"]["relative_l2"]["mean"]
        return False

    trainer.run(note)
    note()
    assert len(found) >= 60 // 7 and max(found) == 60  # one begins, five slices, the next begins; and one at the end
    surrogate = trainer.surrogate
    for step, error in found.items():
        surrogate.load_state_dict(trainer._step.weights[step], strict=False)
        assert error == pytest.approx(relative_l2(surrogate, held_out), rel=1e-4)


def test_a_request_during_a_validation_ends_it():
    class Counting(Validation):
        num_slices = 0

        def advance(self):
            self.num_slices += 1
            return super().advance()

    saved, validation = [], Counting(smoothing(40, seed=2), LAYOUT, batch_size=1)
    trainer = new_trainer(
        StopAfter(steps=5), validation=validation, checkpoint=lambda t: saved.append(t.checkpoint_state()["meta"])
    )
    assert trainer.run(lambda: validation.num_slices == 10) == "steps"
    assert validation.num_slices == 10 and saved[0]["validation"] is None and trainer.validation_errors is None


def test_the_rate_limiter_holds_training_back():
    limiter = RateLimiter(3.0)
    trainer = new_trainer(StopAfter(steps=1000), limiter=limiter)
    limiter.load_state({"started": True, "num_batches": 0, "num_simulations": 0, "batches_per_simulation": 3.0})
    trainer.run(lambda: trainer.learner_wait_seconds > 0.3)
    assert trainer.step == 3  # 3 * (0 + 1) batches


@pytest.mark.parametrize("depth", [0, 2])
def test_limits_and_checkpoints_do_not_wait_for_the_rate_limiter(depth):
    saved = []
    for limit, should_stop, cause in (
        ({"minutes": 0.5 / 60}, never, "minutes"),
        ({"steps": 1000}, lambda: len(saved) >= 3, "stopped"),  # one is of the first run's end
    ):
        trainer = new_trainer(
            StopAfter(**limit),
            limiter=RateLimiter(3.0),
            depth=depth,
            checkpoint=saved.append,
            checkpoint_every_s=0.1 if "steps" in limit else 1000.0,
        )
        trainer.feed.rate_limiter.load_state(
            {"started": True, "num_batches": 3, "num_simulations": 0, "batches_per_simulation": 3.0}
        )
        assert trainer.run(should_stop) == cause and trainer.step == 0


def test_samples_of_simulations_under_way_are_not_trained_on_yet():
    stop_after, arrays = StopAfter(samples=8), smoothing(16, seed=1)
    buffer = Buffer(LAYOUT, Fifo(), capacity=64, watermark=4, seed=0, unit=Trajectories(4))
    ingest = Ingest(NoStream(), buffer, LAYOUT)
    model = FNO(buffer.layout, width=4, modes=3, layers=1)
    surrogate = Surrogate(model, Normalization.identity(buffer.layout), buffer.layout)
    step = Optimization(surrogate, loss=TotalLoss(LAYOUT, LOSSES["mse"]), learning_rate=1e-3)
    settings = Settings(batch_size=1, stop_after=stop_after)
    trainer = Trainer(step, Feed(buffer, "cpu", 1), ingest, settings)

    def take(simulation, steps, **ends):
        steps = np.array(steps, np.int64)
        rows = {name: array[steps] for name, array in arrays.items()}
        ingest.take(Chunk(arrays=rows, simulations=np.full(len(steps), simulation), steps=steps, **ends))

    take(0, [0, 1, 2, 3])
    for simulation in range(1, 6):
        take(simulation, [0, 1])
    take(5, [], failed={5: "diverged"})
    assert trainer.run(lambda: trainer.state == "waiting for samples" and trainer.step > 0) == "stopped"
    assert trainer.step == 1 and trainer.progress == 0.5
    trainer = Trainer(trainer._step, Feed(buffer, "cpu", 1), ingest, settings)
    take(1, [2, 3])
    assert trainer.run(never) == "samples" and trainer.step == 2


def test_a_stream_that_breaks_in_the_warm_up_does_not_fix_the_normalisation():
    saved = []
    trainer = new_trainer(
        StopAfter(steps=10), num_samples=2, checkpoint=lambda t: saved.append(t.checkpoint_state()["meta"]["training"])
    )
    trainer.buffer.close()  # as ingest does when its thread ends by an exception
    assert trainer.run(never) == "stream ended"
    assert [training["normalization_is_fixed"] for training in saved] == [False]


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("every_s", [0.0, 1000.0])
def test_every_sample_of_a_fifo_is_trained_on_once_over_a_stop_and_a_resume(tmp_path, depth, every_s):
    arrays = smoothing(64, seed=1)

    def start(**options):
        return new_trainer(kind=Fifo, step=NotingStep, batch_size=3, depth=depth, **options)

    first = start(
        stop_after=StopAfter(steps=40),
        checkpoint=lambda t: checkpoint.save(tmp_path, t.step, **t.checkpoint_state(), keep=1),
        checkpoint_every_s=every_s,
    )
    first.run(lambda: first.step >= 9)
    # What was drawn ahead is trained on before it is saved as drawn, and more is drawn after a checkpoint.
    assert 9 <= first.step <= 9 + 2 * depth
    second = start(stop_after=StopAfter(steps=15), num_samples=0, seed=7)
    second.load_checkpoint(checkpoint.load(tmp_path))
    assert second.run(never) == "steps" and second.step == 15
    assert second.buffer.num_drawn == 15 * 3  # nothing is drawn that there is no step for
    trained = np.concatenate([batch["fields"] for batch in first._step.batches + second._step.batches])
    assert np.array_equal(trained, arrays["fields"][: 15 * 3])


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, depth, ema_decay):
    whole = new_trainer(StopAfter(steps=40), ema_decay=ema_decay)
    assert whole.run(never) == "steps"

    first = new_trainer(
        StopAfter(steps=40),
        depth=depth,
        ema_decay=ema_decay,
        checkpoint=lambda t: checkpoint.save(tmp_path, t.step, **t.checkpoint_state(), keep=2),
    )
    first.run(lambda: first.step >= 17)
    assert 17 <= first.step <= 17 + depth
    second = new_trainer(StopAfter(steps=40), seed=99, num_samples=0, depth=depth, ema_decay=ema_decay)
    second.load_checkpoint(checkpoint.load(tmp_path))
    assert (second.step, second.num_trained, second.train_seconds) == (first.step, 8 * first.step, first.train_seconds)
    assert second.run(never) == "steps"
    for name, tensor in whole.surrogate.state_dict().items():
        assert torch.equal(tensor, second.surrogate.state_dict()[name]), name
    for name, tensor in whole._step.state().items():
        assert torch.equal(tensor, second._step.state()[name]), name
    assert torch.equal(whole.buffer.state()["num_seen"], second.buffer.state()["num_seen"])
    assert second.loss == whole.loss


@pytest.mark.gpu
def test_from_a_gpu_s_memory_a_checkpoint_is_written_and_restored(tmp_path):
    first, second = (
        new_trainer(StopAfter(steps=steps), seed=seed, ema_decay=0.9, device="cuda") for seed, steps in ((0, 7), (1, 9))
    )
    first.run(never)
    saved, writer = first.checkpoint_state(), Writer()
    writer.save(tmp_path, 7, **saved, keep=1)
    writer.wait()
    second.load_checkpoint(checkpoint.load(tmp_path))
    restored = second.checkpoint_state()
    for part in ("weights", "optimizer"):
        for name, tensor in saved[part].items():
            assert torch.equal(tensor, restored[part][name]), name
    for name, array in first.buffer.storage.arrays.items():
        assert array.is_cuda and torch.equal(array, second.buffer.storage.arrays[name]), name
    assert second.run(never) == "steps" and second.step == 9


def test_what_was_counted_and_measured_goes_on_after_a_resume(tmp_path):
    def start(steps):
        return new_trainer(StopAfter(steps=steps), validation=Validation(smoothing(8, seed=2), LAYOUT))

    first, second = start(5), start(10)
    first.run(never)
    first.feed.wait_seconds = 1.5
    torch.manual_seed(5)
    saved = first.checkpoint_state()
    checkpoint.save(tmp_path, 5, **saved, keep=1)
    torch.manual_seed(6)
    second.load_checkpoint(checkpoint.load(tmp_path))
    assert torch.equal(torch.get_rng_state(), saved["optimizer"]["random.cpu"])
    assert saved["meta"]["validation"] == saved["meta"]["training"]["validation_errors"] is not None
    assert second.checkpoint_state()["meta"] == saved["meta"]
    assert second.run(never) == "steps" and second.learner_wait_seconds >= 1.5
    third = start(10)
    third.load_checkpoint(checkpoint.load(tmp_path))
    assert third.run(lambda: True) == "stopped" and third.warning is None  # the schedule is not over


def test_a_checkpoint_without_the_buffer_keeps_the_normalisation(tmp_path):
    first = new_trainer(StopAfter(steps=3))
    first.run(never)
    checkpoint.save(tmp_path, 3, **first.checkpoint_state(with_buffer=False), keep=1)
    second = new_trainer(StopAfter(steps=6), num_samples=0)
    second.ingest.take(chunk(smoothing(16, seed=5)))
    second.load_checkpoint(checkpoint.load(tmp_path))
    second.run(never)
    assert second.step == 6
    assert torch.equal(second.surrogate.normalization.fields_mean, first.surrogate.normalization.fields_mean)


@pytest.mark.parametrize("depth", [0, 2])
def test_a_diverging_loss_is_one_line_and_nothing_of_it_is_saved(depth):
    trainer = new_trainer(
        StopAfter(steps=1000), learning_rate=1e30, depth=depth, checkpoint=lambda t: pytest.fail("it was saved")
    )
    with pytest.raises(PenstockError, match=r"^the training loss is \w+ at step \d+: lower training\.learning_rate"):
        trainer.run(never)


def test_moments_that_overflow_are_not_saved_though_the_loss_is_finite():
    trainer = new_trainer(StopAfter(steps=2), loss="mse", checkpoint=lambda t: pytest.fail("it was saved"))
    make = lambda _: lambda prediction, target, _: 1e22 * (prediction - target).square().flatten(1).mean(dim=1)  # noqa: E731
    trainer._step._total_loss._loss = TotalLoss(LAYOUT, make)
    with pytest.raises(PenstockError, match=r"moments are not finite at step 2: lower training\.learning_rate"):
        trainer.run(never)


def test_errors_that_are_not_finite_are_one_line_and_never_the_best():
    held_out = smoothing(8, seed=2)
    held_out["fields"][3] = np.inf
    trainer = new_trainer(StopAfter(steps=10), validation=Validation(held_out, LAYOUT))
    with pytest.raises(PenstockError, match=r"the validation error is not finite at step 10: lower training\.learning"):
        trainer.run(never)
    assert trainer.validation_errors is None


def test_a_checkpoint_that_is_due_waits_for_the_one_being_written_and_training_does_not():
    saved = []
    trainer = new_trainer(
        StopAfter(steps=30), checkpoint=lambda trainer: saved.append(trainer.step), checkpoint_every_s=0.0
    )

    class Slow(Noted):
        @property
        def is_writing(self):
            return 10 <= trainer.step < 20  # asked before the step after which it is saved

    trainer.saver = Slow(trainer, trainer.saver.checkpoint)
    assert trainer.run(never) == "steps"
    assert saved == [*range(1, 11), *range(21, 31), 30]
