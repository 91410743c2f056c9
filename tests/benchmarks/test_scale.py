"""The scale bench's pieces on few workers, and the tables that its two commands write."""

import json

import pytest

from benchmarks import consumer, transport
from benchmarks.canned import SIDES, Canned
from benchmarks.scale import calibration, page
from benchmarks.scale.driver import tick_of
from benchmarks.scale.fleet import Fleet, rows_per_chunk
from benchmarks.scale.measure import measure, rate_of


def test_a_rate_goes_from_chunk_to_chunk_where_each_worker_sent_a_few():
    """Two workers of 10 and 5 samples per second, whose chunks come at odd times; what came first was made before."""
    arrivals = [[(0.7, 99), (1.7, 10), (2.7, 10)], [(0.1, 99), (1.1, 5), (2.1, 5), (2.3, 1)]]
    assert rate_of(arrivals, 2, 3.0) == pytest.approx(10 + 11 / 2.2)
    assert rate_of(arrivals, 3, 3.0) == pytest.approx((119 + 110) / 3.0)  # one has sent nothing
    assert rate_of([arrivals[0][:2]], 1, 3.0) == pytest.approx(109 / 3.0)


def test_a_chunk_is_full_or_a_second_old():
    sizes = {size: Canned(side).layout.sample_bytes for size, side in SIDES.items()}
    assert rows_per_chunk(sizes["16 kB"], 0.001) == 247  # the first that is not below 4 MB
    assert rows_per_chunk(sizes["16 kB"], 0.05) == 20
    assert rows_per_chunk(sizes["256 kB"], 0.01) == 16
    assert rows_per_chunk(sizes["256 kB"], 2.0) == 1
    assert rows_per_chunk(sizes["4 MB"], 0.0) == 1


def test_workers_and_sleepers_of_kept_processes_bring_their_samples():
    """One after the other in the same process: a worker, sleepers, and sleepers over the network."""
    side = SIDES["16 kB"]
    with Fleet(1) as fleet:
        worker = measure(fleet, side, 1, pause_s=0.02, seconds=0.2)
        sleepers = measure(fleet, side, 3, pause_s=0.01, seconds=0.2, are_sleepers=True, num_rows=4)
        remote = measure(fleet, side, 3, pause_s=0.01, seconds=0.2, are_sleepers=True, num_rows=4, shares_memory=False)
    assert worker.rate > 0 and 0 < worker.shared_bytes <= worker.bound_bytes
    assert worker.own_bytes < 250e6  # it has imported no torch
    for measured in (sleepers, remote):
        assert measured.rate > 0 and measured.rows_per_chunk == 4
    assert remote.shared_bytes < sleepers.shared_bytes  # only the marks by which memory is known
    assert min(worker.take_s, worker.worker_s, sleepers.take_s, remote.take_s) > 0


def test_the_drivers_books_are_kept_for_every_sample():
    tick = tick_of(3, 64, 2)
    assert (tick.num_workers, tick.num_samples, tick.num_leases) == (3, 3 * 64, 3)
    assert tick.cpu_s > 0 and tick.status_bytes > 100


@pytest.mark.slow  # eight processes are started, and the calibration measures in thirteen ways
def test_the_commands_write_their_tables(bench, tmp_path, monkeypatch):
    """On memory for few chunks, and with the driver's books of few workers, which are fitted as those of many."""
    for module in (consumer, transport):
        monkeypatch.setattr(module, "BUFFER_BYTES", 1 << 24)
    monkeypatch.setattr(calibration, "TICK_ARMS", ((1, 0), (16, 0), (16, 10), (16, 32), (64, 1)))
    monkeypatch.setattr(page, "WORKERS", (1, 4, 16))
    tables = tmp_path / "benchmarks" / "tables"
    ran = bench("model", "--seconds", "0.1", "--workers", "100")
    assert ran.returncode == 2 and "run `python -m benchmarks scale` here first" in ran.stderr

    ran = bench("scale", "--seconds", "0.1", "--processes", "1")
    assert ran.returncode == 0, ran.stderr
    assert "16 kB | 1 | " in ran.stdout and "4 MB | 1 | " in ran.stdout
    assert {size: list(rates) for size, rates in json.loads((tables / "scale.json").read_text())["rates"].items()} == {
        size: ["1"] for size in SIDES
    }
    text = (tables / "scale.md").read_text()
    assert "## The transport's limit" in text and "## The driver" in text

    ran = bench("model", "--seconds", "0.1", "--workers", "100")
    assert ran.returncode == 0, ran.stderr
    assert "256 kB | 100 | 64 | " in ran.stdout
    text = (tables / "model.md").read_text()
    assert "## Predicted and measured" in text and "100 workers on 8 ranks" in text
