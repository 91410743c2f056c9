"""The time left of runs whose end is known, and what is not known."""

from dataclasses import replace

import pytest

from penstock.orchestrator.config.config import Config
from penstock.orchestrator.resources.forecast import MAX_POINTS, Forecast, Pace
from penstock.status import Account, BufferStatus, Ended, LearnerStatus, News, TrainingStatus


def status(state, number, *, validation=0, buffer=0, step=0, samples=0.0, ended=0, seconds=0.0, steps_left=0.0):
    return LearnerStatus(
        training=TrainingStatus(
            **{name: None for name in ("loss", "warning", "validation")},
            **{"state": state, "step": step, "progress": 0.0, "trained": 8 * step, "learning_rate": 1e-3},
            **{"wait_seconds": 0.0, "seconds": seconds, "samples": samples, "steps_left": steps_left},
        ),
        account=Account(
            training=Ended([[0, ended]], {}),
            validation=Ended([[0, validation]], {}),
            **dict.fromkeys(("unique", "dropped", "retried"), 0),
            solver_blocked_seconds=0.0,
        ),
        buffer=BufferStatus(samples=buffer, capacity=200, bias=None),
        news=News(),
        number=number,
    )


def forecast_of(due_in_s=lambda: None, **stop_after):
    training = {"batch_size": 8, "stop_after": stop_after}
    buffer, validation = {"capacity": 200, "watermark": 100}, {"simulations": 16}
    values = {"problem": "darcy", "training": training, "buffer": buffer, "validation": validation}
    return Forecast(Config.model_validate(values), due_in_s)


def trained(forecast, seconds, *, steps_per_s=10, samples_per_s=20.0, simulations_per_s=4, steps_left=0.0, first=1):
    """What lies ahead after some seconds of training at constant rates."""
    for second in range(1, seconds + 1):
        ahead = forecast.look(
            status(
                "training",
                first + second,
                step=steps_per_s * second,
                samples=samples_per_s * second,
                ended=simulations_per_s * second,
                seconds=float(second),
                steps_left=steps_left,
            ),
            1000.0 + second,
        )
    return ahead


@pytest.mark.parametrize(
    ("limits", "until", "left"),
    [
        ({"minutes": 2}, "minutes", 80.0),
        ({"steps": 1000}, "steps", 60.0),
        ({"samples": 1400}, "samples", 30.0),
        ({"simulations": 240}, "simulations", 20.0),
        ({"minutes": 2, "steps": 1000, "samples": 1400, "simulations": 240}, "simulations", 20.0),
        ({"minutes": 2, "steps": 1000, "samples": 1400, "simulations": 1000}, "samples", 30.0),
        ({"minutes": 2, "steps": 1000, "samples": 9999, "simulations": 1000}, "steps", 60.0),
        ({"minutes": 1, "steps": 1000, "samples": 9999, "simulations": 1000}, "minutes", 20.0),
    ],
)
def test_at_constant_rates_the_limit_that_is_met_first_and_its_time_are_exact(limits, until, left):
    ahead = trained(forecast_of(**limits), 40)
    assert ahead.until == until and ahead.seconds == pytest.approx(left)
    assert ahead.done < ahead.total == limits[until] and not ahead.at_most


def test_after_the_last_simulation_what_is_in_the_buffer_is_trained_on():
    ahead = trained(forecast_of(simulations=240), 40, steps_left=50.0)  # 5 s of steps
    assert ahead.seconds == pytest.approx(20.0 + 5.0)
    assert ahead.done == pytest.approx(160 * 400 / 450)  # as in StopAfter.progress


def test_the_end_of_the_time_may_come_first():
    assert trained(forecast_of(lambda: 45.0, steps=1000), 40).until == "walltime"
    ahead = trained(forecast_of(lambda: 75.0, steps=1000), 40)
    assert ahead.until == "steps" and ahead.seconds == pytest.approx(60.0)


def test_an_error_that_may_end_a_run_before_makes_it_at_most():
    ahead = trained(forecast_of(steps=1000, error=0.01), 40)
    assert ahead.at_most and ahead.seconds == pytest.approx(60.0)


def test_a_limit_whose_pace_is_not_known_may_be_met_before():
    ahead = trained(forecast_of(minutes=2, simulations=240), 40, simulations_per_s=0)
    assert ahead.until == "minutes" and ahead.at_most
    ahead = trained(forecast_of(steps=1000), 3)
    assert ahead.seconds is None and ahead.done == 30


def test_a_rate_that_changes_is_followed():
    forecast = forecast_of(steps=10_000)
    trained(forecast, 100)
    for second in range(101, 161):
        ahead = forecast.look(status("training", 1 + second, step=1000 + 40 * (second - 100)), 1000.0 + second)
    assert ahead.seconds == pytest.approx((10_000 - 3400) / 40)  # the last 30 s know nothing of the first 100


def test_what_comes_before_training_is_predicted_by_itself():
    forecast = forecast_of(steps=1000)
    ahead = forecast.look(status("solving the validation set", 1), 0.0)
    assert (ahead.until, ahead.done, ahead.total, ahead.seconds) == ("validation set", 0, 16, None)
    for second in range(30, 37):  # the first took 30 s, as it built what all use
        ahead = forecast.look(status("solving the validation set", second, validation=second - 29), float(second))
    assert (ahead.done, ahead.seconds) == (7, pytest.approx(9.0))
    for second in range(50, 60):
        ahead = forecast.look(status("waiting for samples", second, validation=16, buffer=5 * (second - 49)), second)
    assert (ahead.until, ahead.done, ahead.total) == ("watermark", 50, 100) and ahead.seconds == pytest.approx(10.0)
    ahead = forecast.look(status("waiting for samples", 60, validation=16, buffer=100, step=1), 60.0)  # for more
    assert (ahead.until, ahead.seconds) == ("steps", None)  # whatever was known of what came before


def test_a_learner_in_the_place_of_another_begins_again():
    forecast = forecast_of(steps=1000)
    trained(forecast, 40)
    ahead = forecast.look(status("waiting for samples", 1, buffer=20), 1060.0)
    assert ahead.until == "watermark" and ahead.seconds is None
    ahead = trained(forecast, 20, first=2)
    assert ahead.until == "steps" and ahead.seconds == pytest.approx(80.0)


def test_compiling_stops_the_clock_of_minutes_and_the_end_leaves_nothing():
    forecast = forecast_of(minutes=2, steps=1000)
    assert forecast.look(status("compiling the step", 1), 0.0).seconds is None
    ahead = trained(forecast, 40)
    assert ahead.seconds == pytest.approx(60.0)
    ended = status("ended", 99, step=1000, seconds=100.0)
    assert replace(forecast.look(ended, 1100.0), done=0) == replace(ahead, done=0, seconds=0.0)


def test_the_pace_of_a_count_that_rises_seldom_is_that_of_several_rises():
    pace = Pace()
    for second in range(400):  # one per 40 s: no window of 30 s has seen one and the next
        pace.add(float(second), second // 40)
        assert pace.per_s is None or second >= 120
    assert pace.per_s == pytest.approx(1 / 40, rel=0.15)


def test_a_count_that_dips_as_it_is_read_is_no_other_count():
    """The samples that a batch has had are what came in but what no batch has had, read one after the other."""
    pace = Pace()
    for second in range(100):
        pace.add(float(second), 20.0 * second - (50.0 if second % 3 == 1 else 0.0))
    assert pace.per_s == pytest.approx(20.0, rel=0.05)


def test_a_pace_of_days_takes_little_memory():
    pace = Pace()
    for second in range(20 * MAX_POINTS):
        pace.add(float(second), 3.0 * second)
    assert pace.per_s == pytest.approx(3.0) and len(pace._times) <= MAX_POINTS
