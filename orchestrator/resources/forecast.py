"""What lies ahead of a run: how far it has come, and the time that is left."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter

from penstock.orchestrator.config.config import Config
from penstock.record import Ahead
from penstock.status import LearnerStatus

PACE_OVER_S = 30.0  # several validations and the steps between them
PACE_OVER_SHARE = 0.1  # of the time so far: a run of hours is not judged by half a minute
WIDER = 3.0
MIN_RISES = 5  # one or two rises of a count, as of slow simulations, say little of its pace
MIN_SPAN_S = 5.0
MAX_POINTS = 512
WORKING = ("training", "compiling the step", "validating")  # states of a learner that has begun to train


class Pace:
    """The pace of a count.

    It is the mean over the last 30 s or tenth of the time, whichever is longer, from the first rise on: the time before
    also goes to what is built once. If the count rose fewer than 5 times in that window, a wider one is taken, up to
    the whole time.
    """

    def __init__(self):
        self._last: float | None = None
        self._times: list[float] = []  # from the first rise on
        self._counts: list[float] = []

    def add(self, now: float, count: float) -> None:
        """Note a count.

        Args:
            now: monotonic time, in seconds.
            count: the count at that time. If it is below an earlier one, as a sum of numbers that were not read at the
                same instant may be, it stands for that one.
        """
        last = count if self._last is None else self._last
        self._last = max(count, last)
        if self._times or count > last:
            self._times.append(now)
            self._counts.append(self._last)
            if len(self._times) > MAX_POINTS:  # every second one, with the newest
                self._times, self._counts = self._times[::-2][::-1], self._counts[::-2][::-1]

    @property
    def has_risen(self) -> bool:
        """Whether the count has risen."""
        return bool(self._times)

    @property
    def per_s(self) -> float | None:
        """Counts per second; None if the count has risen too seldom, or only just."""
        if not self.has_risen or (whole := self._times[-1] - self._times[0]) < MIN_SPAN_S:
            return None
        now, span = self._times[-1], max(PACE_OVER_S, PACE_OVER_SHARE * whole)
        while True:
            first = max(0, bisect_right(self._times, now - span) - 1)
            num_rises = len(set(self._counts[first:])) - 1
            if num_rises >= MIN_RISES or first == 0:
                break
            span *= WIDER
        return (self._counts[-1] - self._counts[first]) / (now - self._times[first]) if num_rises > 1 else None

    def seconds(self, count: float) -> float | None:
        """Return the seconds that a further count will take; None if not known."""
        if count <= 0:
            return 0.0
        return count / pace if (pace := self.per_s) else None


class Forecast:
    """Predicts when a run ends: by whichever limit will be met first.

    The phases before training, the validation set and the wait for the watermark, are predicted separately, as their
    pace says nothing about training.

    Args:
        config: the configuration of the run.
        due_in_s: gives the seconds until the run is asked to end by its time (`cluster.walltime`); None for no end.
    """

    def __init__(self, config: Config, due_in_s: Callable[[], float | None] = lambda: None):
        self._limits = config.training.stop_after
        self._watermark = config.buffer.watermark * config.training.ranks  # each rank has a buffer
        self._num_validation = config.validation.simulations
        self._due_in_s = due_in_s
        self._number = 0
        self._began: float | None = None
        self._begin()

    def _begin(self) -> None:
        self._is_training = False
        self._paces = {name: Pace() for name in ("validation set", "watermark", "steps", "samples", "simulations")}

    def look(self, status: LearnerStatus, now: float) -> Ahead:
        """Note a status, and predict.

        Args:
            status: the learner's. One with a number that is not above the last one's is of another learner.
            now: monotonic time, in seconds.

        Returns:
            What lies ahead.
        """
        if 0 < status.number <= self._number:
            self._begin()
        self._number, self._began = status.number, now if self._began is None else self._began
        training, account = status.training, status.account
        counts = {
            "validation set": account.validation.num_delivered + len(account.validation.failed),
            "watermark": status.buffer.samples,
            "steps": training.step,
            "samples": training.samples,
            "simulations": account.training.num_delivered + len(account.training.failed),
        }
        for name, count in counts.items():
            self._paces[name].add(now, count)
        self._is_training |= training.state in WORKING or self._paces["steps"].has_risen
        if training.state == "solving the validation set":
            return self._before("validation set", counts, self._num_validation)
        if not self._is_training:
            return self._before("watermark", counts, self._watermark)
        return self._of_training(status, counts, now)

    def _before(self, phase: str, counts: dict[str, float], total: float) -> Ahead:
        done = min(counts[phase], total)
        return Ahead(until=phase, done=done, total=total, seconds=self._paces[phase].seconds(total - done))

    def _of_training(self, status: LearnerStatus, counts: dict[str, float], now: float) -> Ahead:
        training, limits, steps = status.training, self._limits, self._paces["steps"]
        found: list[Ahead] = []
        if limits.minutes is not None:
            # Compiling stops this clock, for as long as nobody knows.
            left = None if training.state == "compiling the step" else max(0.0, 60 * limits.minutes - training.seconds)
            found.append(Ahead(until="minutes", done=training.seconds / 60, total=limits.minutes, seconds=left))
        for name in ("steps", "samples"):
            if (limit := getattr(limits, name)) is not None:
                left = self._paces[name].seconds(limit - counts[name])
                found.append(Ahead(until=name, done=counts[name], total=limit, seconds=left))
        if (limit := limits.simulations) is not None:
            # After the last one what is in the buffer is trained on, which counts as in `StopAfter.progress`.
            solving = self._paces["simulations"].seconds(limit - counts["simulations"])
            draining = steps.seconds(training.steps_left)
            left = None if solving is None or draining is None else solving + draining
            done = counts["simulations"] * training.step / max(1, training.step + training.steps_left)
            found.append(Ahead(until="simulations", done=done, total=limit, seconds=left))
        may_end_before = limits.error is not None or any(each.seconds is None for each in found)
        if (due := self._due_in_s()) is not None:
            passed = now - self._began
            found.append(Ahead(until="walltime", done=passed / 60, total=(passed + due) / 60, seconds=max(0.0, due)))
        known = [each for each in found if each.seconds is not None]
        if training.state == "ended":
            return replace(max(found, key=_share), seconds=0.0)
        if not known:
            return max(found, key=_share)
        return replace(min(known, key=attrgetter("seconds")), at_most=may_end_before)


def _share(ahead: Ahead) -> float:
    return ahead.done / ahead.total
