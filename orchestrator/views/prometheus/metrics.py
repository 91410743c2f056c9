"""The metrics of a run for Prometheus, fed from its records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

from penstock.messages import Decision, SolveRecord
from penstock.orchestrator.config.metrics import MetricsSection
from penstock.orchestrator.views.prometheus.endpoint import serve
from penstock.orchestrator.views.prometheus.histograms import BulkHistogram
from penstock.orchestrator.views.prometheus.processes import Processes
from penstock.record import SIDES, Bottleneck, Record

SECONDS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
ITERATIONS_BUCKETS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


class Metrics:
    """All metrics of a run in one registry; docs/metrics.md lists them.

    Args:
        section: port, address, token and certificate; by default a free port of localhost, without a token.

    Raises:
        PenstockError: they can't be served so.
    """

    def __init__(self, section: MetricsSection = MetricsSection()):  # noqa: B008 (frozen)
        disable_created_metrics()
        self.registry = registry = CollectorRegistry()
        self._counters = {  # by the field of a Record that each of them shows
            "unique": Counter("penstock_samples_unique_total", "Samples that reached the buffer", registry=registry),
            "trained": Counter(
                "penstock_samples_trained_total", "Samples drawn for training, repetition included", registry=registry
            ),
            "dropped": Counter(
                "penstock_samples_dropped_total", "Second copies of samples, which were dropped", registry=registry
            ),
            "learner_wait_seconds": Counter(
                "penstock_learner_wait_seconds_total", "Time the training step waited for samples", registry=registry
            ),
            "solver_blocked_seconds": Counter(
                "penstock_solver_blocked_seconds_total", "Time solvers waited for the stream, summed", registry=registry
            ),
        }
        simulations = Counter(
            "penstock_simulations_total", "Simulations by what became of them", ["outcome"], registry=registry
        )
        for outcome in ("delivered", "failed", "retried"):
            self._counters[outcome] = simulations.labels(outcome)
        self._gauges = {
            "buffer_samples": Gauge("penstock_buffer_samples", "Samples in the buffer", registry=registry),
            "buffer_capacity": Gauge(
                "penstock_buffer_capacity_samples", "Samples that the buffer holds", registry=registry
            ),
            "workers": Gauge("penstock_workers", "Solver workers that are ready", registry=registry),
            "progress": Gauge("penstock_progress_ratio", "The part of the run that is done", registry=registry),
            "loss": Gauge("penstock_train_loss", "Training loss, mean over the last steps", registry=registry),
        }
        self._validation_error = Gauge(
            "penstock_validation_error", "Relative L2 error on the validation set", ["stat"], registry=registry
        )
        self._vrmse = Gauge(
            "penstock_validation_vrmse", "Root of mean squared error over variance", ["output"], registry=registry
        )
        self._rollout = {
            "relative_l2": Gauge(
                "penstock_rollout_error", "Mean relative L2 error at the end of rollouts", registry=registry
            ),
            "correlation_time": Gauge(
                "penstock_rollout_correlation_time", "Mean steps until a rollout loses correlation", registry=registry
            ),
        }
        self._bias = {
            stat: Gauge(f"penstock_buffer_parameter_{stat}", text, ["parameter"], registry=registry)
            for stat, text in (
                ("ks", "KS distance of a parameter's quantiles in the buffer from those it is drawn from"),
                ("mean", "Mean quantile of a parameter in the buffer, 0.5 where it is as drawn"),
                ("spread", "Standard deviation of a parameter's quantiles in the buffer, 0.289 where it is as drawn"),
            )
        }
        self._age = Gauge(
            "penstock_buffer_age_samples", "Samples that arrived after 95 % of those in the buffer", registry=registry
        )
        self._solves = {  # by the field of a SolveRecord that each of them counts
            "seconds": BulkHistogram("penstock_solve_seconds", "Time of one linear solve", "strategy", SECONDS_BUCKETS),
            "iterations": BulkHistogram(
                "penstock_solve_iterations", "Products with A of one linear solve", "strategy", ITERATIONS_BUCKETS
            ),
        }
        for histogram in self._solves.values():
            registry.register(histogram)
        self._trials = Gauge(
            "penstock_strategy_trial_seconds",
            "Median time of a solve when strategy auto tried it",
            ["family", "strategy"],
            registry=registry,
        )
        self._chosen = Gauge(
            "penstock_strategy_chosen", "1 for the strategy that auto took", ["family", "strategy"], registry=registry
        )
        self._sides = {
            "capacity": Gauge(
                "penstock_capacity_samples_per_second",
                "What a side could do if it never waited",
                ["side"],
                registry=registry,
            ),
            "certainty": Gauge(
                "penstock_bottleneck_certainty", "Certainty that a side limits the run", ["side"], registry=registry
            ),
        }
        self._totals = dict.fromkeys(self._counters, 0.0)
        self.processes = Processes()
        """The series of single workers, of learner ranks and of the disk."""
        registry.register(self.processes)
        self.url = serve(registry, section)

    def choose(self, decisions: Iterable[Decision]) -> None:
        """Show what strategy auto chose, in place of what was shown before.

        Args:
            decisions: one decision per family.
        """
        self._trials.clear()
        self._chosen.clear()
        for decision in decisions:
            for label, seconds in decision.seconds.items():
                if seconds is not None:
                    self._trials.labels(decision.family, label).set(seconds)
                self._chosen.labels(decision.family, label).set(label == decision.strategy)

    def update(self, record: Record, solves: Iterable[SolveRecord]) -> None:
        """Show a record of the run, and count new solves.

        Args:
            record: the record.
            solves: the solves since the record before.
        """
        for name, counter in self._counters.items():
            total = getattr(record, name)
            counter.inc(max(0.0, total - self._totals[name]))
            self._totals[name] = total
        for name, gauge in self._gauges.items():
            if (value := getattr(record, name)) is not None:
                gauge.set(value)
        if record.validation:
            for stat in ("mean", "p99", "max"):
                self._validation_error.labels(stat).set(record.validation["relative_l2"][stat])
            for name, errors in record.validation.get("fields", {}).items():
                if "vrmse" in errors:  # absent from a checkpoint of an earlier penstock
                    self._vrmse.labels(name).set(errors["vrmse"])
            if rollout := record.validation.get("rollout"):
                self._rollout["relative_l2"].set(rollout["relative_l2"][-1])
                if rollout["correlation_time"] is not None:
                    self._rollout["correlation_time"].set(rollout["correlation_time"])
        self._show(record.bottleneck)
        bias = record.bias or {"parameters": {}, "age_p95": None}
        for name, stats in bias["parameters"].items():
            for stat, gauge in self._bias.items():
                gauge.labels(name).set(stats[stat])
        if bias["age_p95"] is not None:
            self._age.set(bias["age_p95"])
        by_strategy: defaultdict[str, list[SolveRecord]] = defaultdict(list)
        for solve in solves:
            by_strategy[solve.strategy].append(solve)
        for strategy, some in by_strategy.items():
            for name, histogram in self._solves.items():
                histogram.observe(strategy, [getattr(solve, name) for solve in some])

    def _show(self, bottleneck: Bottleneck | None) -> None:
        """Show which side limits; nothing is shown while that is not known."""
        if bottleneck is None:
            for gauge in self._sides.values():
                gauge.clear()
            return
        for side in ("learner", "solvers", "transport"):
            if (rate := getattr(bottleneck, f"{side}_per_s")) is not None:
                self._sides["capacity"].labels(side).set(rate)
        for side in SIDES:
            self._sides["certainty"].labels(side).set(bottleneck.certainty if side == bottleneck.side else 0.0)
