"""Names and values of the endpoint."""

import urllib.request
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from penstock.messages import Decision, SolveRecord
from penstock.orchestrator.views.prometheus.metrics import Metrics
from penstock.record import SIDES, Bottleneck, Record

RECORD = Record.from_json(
    {
        "progress": 0.5,
        "unique": 10,
        "trained": 40,
        "dropped": 3,
        "learner_wait_seconds": 1.5,
        "solver_blocked_seconds": 2.5,
        "delivered": 9,
        "failed": 1,
        "retried": 2,
        "workers": 4,
        "buffer_samples": 5,
        "buffer_capacity": 8,
        "loss": 0.25,
        "validation": {
            "relative_l2": {"mean": 0.1, "median": 0.09, "p99": 0.2, "max": 0.3},
            "fields": {"u": {"vrmse": 0.4}},
            "rollout": {"steps": [1, 2], "relative_l2": [0.1, 0.5], "correlation_time": 1.5},
        },
        "bias": None,
    }
)


def scrape(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        sample.name + str(sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_endpoint_tells_a_record_and_its_solves():
    metrics = Metrics()
    metrics.update(RECORD, [SolveRecord(strategy="direct", seconds=0.003, iterations=0, relative_residual=1e-15)])
    metrics.update(replace(RECORD, unique=12), [])
    values = scrape(metrics.url)
    assert values["penstock_samples_unique_total[]"] == 12
    assert values["penstock_samples_trained_total[]"] == 40
    assert values["penstock_samples_dropped_total[]"] == 3
    assert values["penstock_simulations_total[('outcome', 'failed')]"] == 1
    assert values["penstock_validation_error[('stat', 'p99')]"] == 0.2
    assert values["penstock_validation_vrmse[('output', 'u')]"] == 0.4
    assert values["penstock_rollout_error[]"] == 0.5 and values["penstock_rollout_correlation_time[]"] == 1.5
    assert values["penstock_solve_seconds_count[('strategy', 'direct')]"] == 1
    assert values["penstock_buffer_capacity_samples[]"] == 8
    assert values["penstock_workers[]"] == 4 and values["penstock_progress_ratio[]"] == 0.5


def test_the_endpoint_tells_the_bias_of_the_stream():
    metrics = Metrics()
    empty = {"parameters": {}, "steps": None, "age_p95": None}
    for bias in (None, empty):  # before the first sample
        metrics.update(replace(RECORD, bias=bias), [])
        assert not any("parameter" in name for name in scrape(metrics.url))
    drawn, swept = {"mean": 0.49, "spread": 0.28, "ks": 0.03}, {"mean": 0.2, "spread": 0.1, "ks": 0.6}
    steps = {"mean": 4.5, "spread": 2.9}
    bias = {"parameters": {"wavenumber": drawn, "source": swept}, "steps": steps, "age_p95": 730.0}
    metrics.update(replace(RECORD, bias=bias), [])
    values = scrape(metrics.url)
    for name, stats in bias["parameters"].items():
        shown = {stat: values[f"penstock_buffer_parameter_{stat}[('parameter', '{name}')]"] for stat in stats}
        assert shown == stats
    assert values["penstock_buffer_age_samples[]"] == 730


def test_the_endpoint_tells_which_side_limits():
    metrics = Metrics()
    metrics.update(RECORD, [])
    assert not any("bottleneck" in name or "capacity_samples_per" in name for name in scrape(metrics.url))
    found = Bottleneck(side="solvers", certainty=0.97, sentence="", learner_per_s=160.0, solvers_per_s=40.0)
    metrics.update(replace(RECORD, bottleneck=replace(found, side="learner")), [])
    metrics.update(replace(RECORD, bottleneck=found), [])
    values = scrape(metrics.url)
    certainties = {side: values[f"penstock_bottleneck_certainty[('side', '{side}')]"] for side in SIDES}
    assert certainties == dict.fromkeys(SIDES, 0.0) | {"solvers": 0.97}
    prefix = "penstock_capacity_samples_per_second[('side', "
    assert {name: value for name, value in values.items() if name.startswith(prefix)} == {
        f"{prefix}'learner')]": 160.0,
        f"{prefix}'solvers')]": 40.0,
    }


def test_the_endpoint_tells_what_auto_chose():
    metrics = Metrics()
    tried = {"direct": 0.004, "cg + multigrid": 0.002, "gcrodr": None}
    metrics.choose([Decision(family="darcy", strategy="direct", seconds=tried, reason="")])
    metrics.choose([Decision(family="darcy", number=1, strategy="cg + multigrid", seconds=tried, reason="")])
    values = scrape(metrics.url)
    prefix = "penstock_strategy_chosen[('family', 'darcy'), ('strategy', "
    chosen = {label: values[f"{prefix}'{label}')]"] for label in tried}
    assert chosen == {"direct": 0, "cg + multigrid": 1, "gcrodr": 0}
    assert values["penstock_strategy_trial_seconds[('family', 'darcy'), ('strategy', 'direct')]"] == 0.004
