"""A folder of made-up runs, served."""

import json
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread

import pytest
import yaml

from penstock.orchestrator.views.dashboard.server import Dashboard
from penstock.record import Record
from tests.support.waiting import wait_until

NAME = "wave-20260102-030405"
CONFIG = {"name": "wave", "problem": {"name": "wave_1d"}, "model": {"name": "fno"}, "solver": {"ranks": 1}}


def make_run(runs: Path, name: str = NAME, num_records: int = 3) -> Path:
    """A run that has ended, without checkpoints."""
    path = runs / name
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (path / "run.json").write_text(json.dumps({"state": "ended", "cause": "samples", "host": "here"}))
    for number in range(num_records):
        append(path, number)
    return path


def append(path: Path, number: int, loss: float = 0.5) -> None:
    """Write one more record, that of second `number`."""
    record = Record(
        state="training",
        step=10 * number,
        unique=8 * number,
        trained=20 * number,
        buffer_samples=number,
        buffer_capacity=20,
        loss=loss,
        train_seconds=float(number),
        elapsed_seconds=float(number),
        delivered=8 * number,
    )
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record.to_json()) + "\n")


class Visitor:
    """Asks a dashboard by HTTP, as a browser would that has, or has not, its cookie."""

    def __init__(self, dashboard: Dashboard):
        self.dashboard = dashboard
        self.cookie = {"Cookie": f"penstock-{dashboard.server_port}={dashboard.session}"}

    def ask(self, path, *, method="GET", headers=None, is_known=True):
        """The status, the headers and the text of an answer."""
        connection = HTTPConnection("127.0.0.1", self.dashboard.server_port, timeout=30)
        try:
            connection.request(method, path, headers=(self.cookie if is_known else {}) | (headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def settled(self, path, keys) -> dict:
        """The state of a page once these of its sections were made."""
        found = {}

        def is_made() -> bool:
            found.update(json.loads(self.ask(f"{path}state")[2]))
            return set(keys) <= set(found["etags"])

        wait_until(is_made)
        return found


@pytest.fixture
def runs(tmp_path):
    runs = tmp_path / "runs"
    make_run(runs)
    return runs


@pytest.fixture
def dashboard(runs):
    with Dashboard(runs) as dashboard:
        thread = Thread(target=dashboard.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield dashboard
        dashboard.shutdown()
        thread.join()


@pytest.fixture
def visitor(dashboard):
    return Visitor(dashboard)
