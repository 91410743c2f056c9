"""Series of single workers, of learner ranks and of the disk."""

from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from penstock.orchestrator.views.prometheus.processes import Processes
from penstock.status import RankStatus, WorkerStatus

WORKERS = [
    WorkerStatus(place=0, is_ready=True, simulations=7, restarts=2, resident_bytes=10**8),
    WorkerStatus(place=3, is_ready=False, silent_seconds=41.0, simulations=5),
]


def shown(processes: Processes) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(processes)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_workers_ranks_and_disk_are_shown_by_their_places():
    processes = Processes()
    assert not shown(processes)
    processes.show(WORKERS, (RankStatus(resident_bytes=3, device_bytes=4), RankStatus(resident_bytes=5)), (100, 20))
    assert shown(processes) == {
        ("penstock_worker_ready", "0"): 1,
        ("penstock_worker_ready", "3"): 0,
        ("penstock_worker_silent_seconds", "0"): 0,
        ("penstock_worker_silent_seconds", "3"): 41,
        ("penstock_worker_simulations_total", "0"): 7,
        ("penstock_worker_simulations_total", "3"): 5,
        ("penstock_worker_restarts_total", "0"): 2,
        ("penstock_worker_restarts_total", "3"): 0,
        ("penstock_worker_resident_bytes", "0"): 1e8,
        ("penstock_learner_resident_bytes", "0"): 3,
        ("penstock_learner_resident_bytes", "1"): 5,
        ("penstock_learner_device_bytes", "0"): 4,
        ("penstock_disk_size_bytes",): 100,
        ("penstock_disk_free_bytes",): 20,
    }


def test_places_that_are_gone_leave_no_series():
    processes = Processes()
    many = [replace(WORKERS[0], place=place) for place in range(256)]
    processes.show(many, (), None)
    assert sum(name == "penstock_worker_ready" for name, *_ in shown(processes)) == 256
    processes.show(many[:2], (), None)
    assert {place for _, place in shown(processes)} == {"0", "1"}
