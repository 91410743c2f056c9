"""What each side of a run could do alone, and what would help."""

from __future__ import annotations

from dataclasses import dataclass, fields

from penstock.orchestrator.config.config import Config
from penstock.orchestrator.config.solver import Steered
from penstock.orchestrator.views.numbers import digits
from penstock.record import Bottleneck
from penstock.status import LearnerStatus

WAITS = 0.1  # share of its time above which a side waits
CERTAIN = 0.95  # probability from which on a bottleneck is said without a reserve


def workers_for(num: float, reuse: float, target: float) -> float:
    """The number of workers at which reuse would be at its target.

    Reuse falls as the number rises, in proportion as long as they do not hold each other or the learner up.

    Args:
        num: the number now.
        reuse: reuse with that number.
        target: reuse that is asked for.

    Returns:
        The number, not rounded.
    """
    return num * reuse / target


@dataclass(frozen=True, kw_only=True)
class Aims:
    """What the configuration says of reuse."""

    batches_per_simulation: float | None = None
    """Ratio of the rate limiter; None without one."""
    reuse: float | None = None
    """Reuse that the number of workers is steered to; None where the number is given."""

    @classmethod
    def of(cls, config: Config) -> Aims:
        """The aims of a configuration."""
        workers = config.solver.workers
        return cls(
            batches_per_simulation=config.buffer.batches_per_simulation,
            reuse=workers.reuse if isinstance(workers, Steered) else None,
        )


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Sums up to a moment, or their differences between two."""

    seconds: float
    worker_seconds: float
    """Time, summed over workers."""
    unique: float
    trained: float
    simulations: float
    steps: float
    training: float
    waiting: float
    aside: float
    """Time for validation, checkpoints and compiling, and pauses of the intake."""
    starved: float
    taking: float
    full: float
    held: float
    solving: float
    blocked: float
    unleased: float

    @classmethod
    def of(cls, status: LearnerStatus, *, seconds: float, worker_seconds: float) -> Standing:
        """The standing by a status.

        Args:
            status: the learner's.
            seconds: monotonic time.
            worker_seconds: the number of workers, summed over time, in seconds.

        Returns:
            The standing.
        """
        training, account, intake = status.training, status.account, status.account.intake
        return cls(
            seconds=seconds,
            worker_seconds=worker_seconds,
            unique=account.unique,
            trained=training.trained,
            simulations=account.training.num_delivered + len(account.training.failed),
            steps=training.step,
            training=training.times.training,
            waiting=training.wait_seconds,
            aside=training.times.aside + training.times.compiling + intake.paused,
            starved=intake.starved,
            taking=intake.taking,
            full=intake.full,
            held=intake.held,
            solving=account.solver_seconds,
            blocked=account.solver_blocked_seconds,
            unleased=account.solver_unleased_seconds,
        )

    @property
    def idle(self) -> float:
        """Time in which workers waited, summed over workers."""
        return self.blocked + self.unleased

    def __sub__(self, before: Standing) -> Standing:
        return Standing(**{name: getattr(self, name) - getattr(before, name) for name in NAMES})

    def __add__(self, other: Standing) -> Standing:
        return Standing(**{name: getattr(self, name) + getattr(other, name) for name in NAMES})


NAMES = tuple(each.name for each in fields(Standing))


@dataclass(frozen=True)
class Ladder:
    """What each side could do alone, in samples per second, and what to say of it."""

    total: Standing
    """Differences over a time."""
    aims: Aims

    @property
    def waits(self) -> float:
        """Share of the learner's time for which it waits."""
        return self.total.waiting / self.total.training

    @property
    def blocked(self) -> float:
        """Share of the workers' time for which they wait."""
        return self.total.idle / (self.total.idle + self.total.solving)

    @property
    def num_workers(self) -> float:
        return self.total.worker_seconds / self.total.seconds

    @property
    def learner(self) -> float:
        """Trained samples per second of a learner that never waits."""
        busy = max(self.total.training - self.total.waiting, 1e-9)
        return self.total.trained / busy

    @property
    def solvers(self) -> float:
        """Unique samples per second of workers that never wait."""
        return self.total.unique / self.total.solving * self.num_workers

    @property
    def reuse(self) -> float:
        return self.total.trained / self.total.unique

    @property
    def free_reuse(self) -> float:
        """Reuse if neither side waited."""
        return self.learner / self.solvers

    @property
    def unique(self) -> float:
        """Unique samples per second, as measured."""
        return self.total.unique / self.total.seconds

    def transport(self, side: str) -> float | None:
        """Unique samples per second that the way into the buffer has room for."""
        if side == "transport" and self.total.starved > self.total.taking:
            return self.unique
        return self.total.unique / self.total.taking if self.total.taking > 0 else None

    def bottleneck(self, side: str, certainty: float, reserve: str = "") -> Bottleneck:
        """The bottleneck, with what each side could do.

        Args:
            side: the side that limits.
            certainty: how certain that is.
            reserve: what the sentence begins with.

        Returns:
            The bottleneck.
        """
        return Bottleneck(
            side=side,
            certainty=certainty,
            sentence=reserve + self._sentence(side),
            learner_per_s=self.learner,
            solvers_per_s=self.solvers,
            transport_per_s=self.transport(side),
        )

    def _sentence(self, side: str) -> str:
        return {
            "solvers": self._of_solvers,
            "learner": self._of_learner,
            "rate limiter": self._of_rate_limiter,
            "buffer": self._of_buffer,
            "transport": self._of_transport,
            "none": self._of_none,
        }[side]()

    def _of_solvers(self) -> str:
        more = max(0.0, workers_for(self.num_workers, self.free_reuse, self.reuse) - self.num_workers)
        of_reuse = "" if self.aims.batches_per_simulation is None else f" at reuse {digits(self.reuse)}"
        limiter = self._other_ratio("; or")
        return (
            f"solvers limit: {_few(more)} workers more would feed this learner{of_reuse}, which waits "
            f"{percent(self.waits)} of its time{limiter}"
        )

    def _of_learner(self) -> str:
        needed = min(self.num_workers, workers_for(self.num_workers, self.free_reuse, self.reuse))
        return (
            f"the learner limits: the solvers wait {percent(self.blocked)} of their time; a step in "
            f"{percent(min(1.0, self.free_reuse / self.reuse))} of its time would take all that they deliver, and "
            f"{_few(needed)} of {_few(self.num_workers)} workers would do for this one"
        )

    def _of_rate_limiter(self) -> str:
        if self.waits > WAITS:
            return (
                f"rate limiter has both sides wait in turn at reuse {digits(self.reuse)}: learner "
                f"{percent(self.waits)}, solvers {percent(self.blocked)}{self._other_ratio(';')}"
            )
        return (
            f"the rate limiter holds the solvers to reuse {digits(self.reuse)}, which wait {percent(self.blocked)} of "
            f"their time{self._other_ratio(':')}"
        )

    def _other_ratio(self, joint: str) -> str:
        """The ratio of the rate limiter at which neither side would wait."""
        ratio = self.aims.batches_per_simulation
        if ratio is None:
            return ""
        wanted = ratio * self.free_reuse / self.reuse
        return (
            f"{joint} buffer.batches_per_simulation {digits(wanted)} in place of {digits(ratio)} (reuse "
            f"{digits(self.free_reuse)}) suits the speed of both"
        )

    def _of_buffer(self) -> str:
        return (
            f"the buffer limits: learner ({percent(self.waits)} of its time) and solvers ({percent(self.blocked)}) "
            f"wait in turn; a larger buffer.capacity would even that out"
        )

    def _of_transport(self) -> str:
        if self.total.unleased > self.total.blocked:
            why = "the workers wait for leases: raise solver.window"
        elif self.total.starved > self.total.taking:
            why = "the learner has room, and the network between them is what is slow"
        else:
            why = "the learner's process is at its limit with taking them in, and needs more cores or ranks"
        return (
            f"transport limits: it brings {digits(self.unique)} of the {digits(self.solvers)} samples/s that the "
            f"solvers could deliver; {why}"
        )

    def _of_none(self) -> str:
        line = (
            f"neither side waits: {digits(self.solvers)} unique and {digits(self.learner)} trained samples/s, reuse "
            f"{digits(self.reuse)}"
        )
        if self.aims.reuse is not None:
            wanted = workers_for(self.num_workers, self.reuse, self.aims.reuse)
            return f"{line}; {_few(wanted)} workers would bring it to {digits(self.aims.reuse)}"
        if self.reuse < 1:
            return f"{line}; at least {percent(1 - self.reuse)} of the samples are never trained on"
        return f"{line}; {_few(2 * self.num_workers)} workers would halve the reuse"


def _few(number: float) -> str:
    return f"{number:.2g}" if number < 10 else f"{number:.0f}"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.0f} %"
