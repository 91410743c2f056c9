"""The loop learns, follows its schedule, stops for each cause, and resumes bit for bit."""

import threading
import time

import numpy as np
import pytest
import torch

from penstock.errors import PenstockError
from penstock.learner import checkpoint
from penstock.learner.buffers import Fifo, Reservoir
from penstock.learner.models.fno import FNO
from penstock.learner.rate_limiter import RateLimiter
from penstock.learner.trainer import StopAfter, Trainer, schedule
from penstock.learner.validation import Validation
from penstock.sample import FieldSpec, Layout

LAYOUT = Layout((FieldSpec(name="a", shape=(16, 16)),), (FieldSpec(name="u", shape=(16, 16)),))


def smoothing(count, seed):
    """a -> the solution of u - 0.01 Δu = a on the torus, by FFT, offset and scaled as physical quantities are."""
    k = 2 * np.pi * np.fft.fftfreq(16, 1 / 16)
    symbol = 1 / (1 + 0.01 * (k[:, None] ** 2 + k**2))
    a = np.random.default_rng(seed).normal(size=(count, 1, 16, 16))
    u = np.fft.ifft2(symbol * np.fft.fft2(a)).real
    return {"fields": (7 + 3 * a).astype(np.float32), "targets": (1e-3 * (2 + u)).astype(np.float32)}


def fill(buffer, arrays, first=0):
    count = len(arrays["fields"])
    return buffer.put_now(arrays, np.arange(first, first + count), np.zeros(count, np.int64))


def new_trainer(stop_after, *, buffer=None, num_samples=64, seed=0, **options):
    torch.manual_seed(seed)
    if buffer is None:
        buffer = Reservoir(LAYOUT, capacity=64, watermark=16, seed=seed)
        fill(buffer, smoothing(num_samples, seed=1))
    options = {"batch_size": 8, "learning_rate": 5e-3, "loss": "relative_l2", **options}
    return Trainer(FNO(LAYOUT, width=8, modes=6, layers=2), LAYOUT, buffer, stop_after=stop_after, **options)


def never():
    return False


@pytest.mark.parametrize("loss", ["relative_l2", "mse"])
def test_a_linear_operator_is_learnt(loss):
    validation = Validation(smoothing(32, seed=2))
    trainer = new_trainer(StopAfter(steps=300), loss=loss, validation=validation)
    before = validation.errors(trainer.surrogate)["mean"]
    assert trainer.run(never) == "steps"
    assert trainer.step == 300 and trainer.num_trained == 2400
    assert trainer.validation_errors["mean"] < 0.05 < before / 5
    assert trainer.best_error == trainer.validation_errors["mean"]
    assert trainer.validation_errors["median"] <= trainer.validation_errors["p99"] <= trainer.validation_errors["max"]


def test_the_schedule_rises_then_falls_to_zero():
    rates = [schedule(progress) for progress in np.linspace(0, 1, 1001)]
    peak = int(np.argmax(rates))
    assert 30 <= peak <= 50 and rates[peak] == pytest.approx(1, abs=0.03)
    assert rates[0] == pytest.approx(0.1) and rates[-1] == pytest.approx(0, abs=1e-9)
    assert (np.diff(rates[:peak]) > 0).all() and (np.diff(rates[peak + 1 :]) < 0).all()


def test_progress_is_the_largest_part_done():
    stop_after = StopAfter(minutes=10, steps=100, simulations=1000, error=0.01)
    assert stop_after.progress(minutes=1, steps=20, simulations=500) == 0.5
    assert stop_after.progress(minutes=1, steps=90, simulations=500) == 0.9
    assert stop_after.progress(minutes=11, steps=0, simulations=0) == 1.0
    with pytest.raises(ValueError, match="one of minutes, steps, simulations"):
        StopAfter(error=0.1)
    with pytest.raises(ValueError, match=r"stop_after\.steps must be above 0"):
        StopAfter(steps=0)


def test_each_limit_is_a_cause():
    assert new_trainer(StopAfter(minutes=0.5 / 60)).run(never) == "minutes"
    validation = Validation(smoothing(8, seed=2))
    trainer = new_trainer(StopAfter(steps=2000, error=0.5), validation=validation, validation_every_s=0.1)
    assert trainer.run(never) == "error" and trainer.validation_errors["mean"] <= 0.5
    for stop_after in (StopAfter(steps=2000), StopAfter(simulations=64)):
        trainer = new_trainer(stop_after, ended=lambda: 64)
        trainer.buffer.end_of_stream()
        assert trainer.run(never) == "stream ended" and trainer.num_trained == 64


def test_a_request_stops_at_the_next_step_and_saves_without_validating():
    saved = []
    trainer = new_trainer(StopAfter(steps=10**6), checkpoint=lambda t: saved.append(t.step))
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    assert trainer.run(stop.is_set) == "stopped"
    assert saved == [trainer.step] and trainer.validation_errors is None and trainer.state == "ended"


def test_a_request_while_waiting_for_samples_ends_at_once():
    trainer = new_trainer(StopAfter(steps=10), num_samples=4)
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    before = time.monotonic()
    assert trainer.run(stop.is_set) == "stopped" and time.monotonic() - before < 2
    assert trainer.step == 0 and trainer.learner_wait_seconds == 0


def test_waits_for_samples_are_counted():
    buffer = Fifo(LAYOUT, capacity=64, watermark=8, seed=0)
    arrays = smoothing(16, seed=1)
    fill(buffer, {name: array[:8] for name, array in arrays.items()})
    threading.Timer(0.4, fill, [buffer, {name: array[8:] for name, array in arrays.items()}]).start()
    trainer = new_trainer(StopAfter(steps=2), buffer=buffer)
    assert trainer.run(never) == "steps"
    assert 0.1 < trainer.learner_wait_seconds <= trainer.train_seconds < 5


def test_validation_and_checkpoints_come_in_their_intervals():
    saved = []
    trainer = new_trainer(
        StopAfter(minutes=1.0 / 60),
        validation=Validation(smoothing(4, seed=2)),
        validation_every_s=0.1,
        checkpoint=lambda t: saved.append((t.step, t.checkpoint_state()["meta"]["validation"])),
        checkpoint_every_s=0.3,
    )
    trainer.run(never)
    assert 2 <= len(saved) <= 5 and saved[-1][0] == trainer.step
    assert all(validation is not None for _, validation in saved)  # each knows its own weights' error


def test_the_rate_limiter_holds_training_back():
    limiter = RateLimiter(3.0)
    limiter.start()
    trainer = new_trainer(StopAfter(steps=1000), rate_limiter=limiter)
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    trainer.run(stop.is_set)
    assert trainer.step <= 4  # 3 * (0 + 1) batches, and the one that the request let pass
    assert trainer.learner_wait_seconds > 0.1


def test_a_diverging_loss_is_one_line():
    trainer = new_trainer(StopAfter(steps=1000), learning_rate=1e30)
    with pytest.raises(PenstockError, match=r"lower training\.learning_rate"):
        trainer.run(never)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path):
    torch.set_num_threads(2)
    whole = new_trainer(StopAfter(steps=40))
    assert whole.run(never) == "steps"

    first = new_trainer(
        StopAfter(steps=40), checkpoint=lambda t: checkpoint.save(tmp_path, t.step, **t.checkpoint_state(), keep=2)
    )
    first.run(lambda: first.step >= 17)
    assert first.step == 17
    second = new_trainer(StopAfter(steps=40), seed=99, buffer=Reservoir(LAYOUT, capacity=64, watermark=16, seed=99))
    second.load_checkpoint(checkpoint.load(tmp_path))
    assert (second.step, second.num_trained, second.train_seconds) == (17, 17 * 8, first.train_seconds)
    assert second.run(never) == "steps"
    for name, tensor in whole.surrogate.state_dict().items():
        assert torch.equal(tensor, second.surrogate.state_dict()[name]), name
    assert torch.equal(whole.buffer.state()["num_seen"], second.buffer.state()["num_seen"])
    assert second.loss == whole.loss


def test_a_checkpoint_without_the_buffer_keeps_the_normalisation(tmp_path):
    first = new_trainer(StopAfter(steps=3))
    first.run(never)
    checkpoint.save(tmp_path, 3, **first.checkpoint_state(with_buffer=False), keep=1)
    buffer = Reservoir(LAYOUT, capacity=64, watermark=16, seed=0)
    fill(buffer, smoothing(16, seed=5))
    second = new_trainer(StopAfter(steps=6), buffer=buffer)
    second.load_checkpoint(checkpoint.load(tmp_path))
    second.run(never)
    assert torch.equal(second.surrogate.normalization.fields_mean, first.surrogate.normalization.fields_mean)


def test_options_that_would_wait_for_ever_are_refused():
    with pytest.raises(ValueError, match="batch_size must be between 1 and the buffer's capacity 64"):
        new_trainer(StopAfter(steps=1), batch_size=65)
