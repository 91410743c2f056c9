import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from penstock.errors import PenstockError
from penstock.orchestrator.metrics import Metrics
from penstock.sample import SolveRecord

RECORD = {
    "unique": 10,
    "trained": 40,
    "learner_wait_seconds": 1.5,
    "solver_blocked_seconds": 2.5,
    "delivered": 9,
    "failed": 1,
    "retried": 2,
    "buffer_samples": 5,
    "buffer_capacity": 8,
    "loss": 0.25,
    "validation": {"mean": 0.1, "median": 0.09, "p99": 0.2, "max": 0.3},
}


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        sample.name + str(sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_endpoint_tells_a_record_and_its_solves():
    metrics = Metrics("auto")
    metrics.update(RECORD, [SolveRecord(strategy="direct", seconds=0.003, iterations=0, relative_residual=1e-15)])
    metrics.update(RECORD | {"unique": 12}, [])
    values = scrape(metrics.port)
    assert values["penstock_samples_unique_total[]"] == 12
    assert values["penstock_samples_trained_total[]"] == 40
    assert values["penstock_simulations_total[('outcome', 'failed')]"] == 1
    assert values["penstock_validation_error[('stat', 'p99')]"] == 0.2
    assert values["penstock_solve_seconds_count[('strategy', 'direct')]"] == 1
    assert values["penstock_buffer_capacity_samples[]"] == 8


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PenstockError, match=f"metrics.port: {port} is in use"):
            Metrics(port)
