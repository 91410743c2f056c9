"""One run through the real command line, watched from outside, and what is done with it afterwards."""

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import psutil
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from penstock.arrays import zarr_store
from penstock.learner.checkpoints import checkpoint
from penstock.orchestrator.views.numbers import digits

METRICS = {
    "penstock_samples_unique_total",
    "penstock_samples_trained_total",
    "penstock_simulations_total",
    "penstock_solve_seconds_bucket",
    "penstock_solve_iterations_bucket",
    "penstock_buffer_samples",
    "penstock_buffer_capacity_samples",
    "penstock_train_loss",
    "penstock_validation_error",
    "penstock_learner_wait_seconds_total",
    "penstock_solver_blocked_seconds_total",
}


class Watch(threading.Thread):
    """Samples a run from outside: its endpoint, its disk use, its listening sockets, what Ray spilled."""

    def __init__(self, cli, process):
        super().__init__(daemon=True)
        self.cli, self.process = cli, process
        self.scrapes, self.disk, self.spilled, self.addresses = [], [], [], set()
        self.listening, self.tokens, self.command_lines = set(), set(), set()
        self.session_folders = set()

    def run(self):
        while self.process.poll() is None:
            time.sleep(0.3)
            try:
                self.sample()
            except (OSError, HTTPException, psutil.Error, ValueError):
                continue  # files and processes come and go while they are listed

    def sample(self):
        folder = self.cli.latest
        self.disk.append(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
        address = self.cli.read("run.json")["metrics"]
        with urllib.request.urlopen(address, timeout=2) as response:
            if response.length is None:  # the process ended between the status line and the headers
                raise IncompleteRead(b"")
            families = text_string_to_metric_families(response.read().decode())
        self.scrapes.append(
            {
                (sample.name, *sorted(sample.labels.items())): sample.value
                for family in families
                for sample in family.samples
            }
        )
        driver = psutil.Process(self.process.pid)
        for process in (driver, *driver.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                if process == driver or process.cmdline() != driver.cmdline():  # or a fork, before its exec
                    self.look_at(process, "driver" if process == driver else kind_of(process))
        for session in Path(gettempdir()).glob(f"penstock-{self.process.pid}-*"):
            self.session_folders.add(session)
            self.spilled += list(session.rglob("ray_spilled_objects*/*")) + list(session.glob("**/plasma*/*"))

    def look_at(self, process, kind):
        self.command_lines.add(" ".join(process.cmdline()))
        self.tokens.add(process.environ().get("RAY_AUTH_TOKEN"))
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                self.listening.add((kind, reach_of(connection.laddr.ip)))
                if kind == "driver":
                    self.addresses.add((connection.laddr.ip, connection.laddr.port))


def kind_of(process):
    """The name that docs/security.md gives a process of a run."""
    words = " ".join((process.name(), *process.cmdline()))
    for kind, mark in KINDS.items():
        if mark in words:
            return kind
    return words


KINDS = {  # what is in the name or the command line of each
    **{"learner": "ray::LearnerActor", "solver": "ray::SolverActor", "idle": "ray::IDLE", "agent": "Agent"},
    **{"gcs_server": "gcs_server", "raylet": "raylet/raylet", "monitor": "monitor.py"},
}
REACHES = {"127.0.0.1": "127.0.0.1", "0.0.0.0": "every interface", "::": "every interface"}


def reach_of(ip):
    return REACHES.get(ip, "the machine's")


def documented():
    """The first table of docs/security.md: what listens on which address, and whether on a port that may be taken."""
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    table = page.partition("| process | for | address | token |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    return {(process, address): "where it is free" in what or what == "the same" for process, what, address, _ in rows}


@pytest.fixture(scope="module")
def watched(shared_cli):
    """The finished run, the watch that was kept on it, and the command's result."""
    process = shared_cli.start("train", "tiny.yaml", "validation.every_s=0.2", "monitor=[tensorboard]")
    watch = Watch(shared_cli, process)
    watch.start()
    result = shared_cli.finish(process)
    watch.join()
    return shared_cli, watch, result


@pytest.mark.darcy
def test_it_ends_with_a_summary_and_the_next_commands(watched):
    cli, _, result = watched
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "1 solver worker, 2 learner threads on the CPU" in result.stdout
    assert "memory: the run's data take at most" in result.stdout
    assert re.search(r"validation set of 16 rows \d\S* kB", result.stdout)  # and not 0 MB
    assert "validation relative L2 error over 16 simulations: mean" in result.stdout
    for command in ("report", "export", "predict"):
        assert f"penstock {command}\n" in result.stdout
    summary = cli.read("summary.json")
    assert summary["cause"] == "steps" and summary["step"] == 150
    assert summary["trained"] == 150 * 8 and summary["failed"] == 0
    errors = summary["validation"]["relative_l2"]
    assert errors["mean"] < 0.3  # untrained it is about 1
    assert errors["mean"] <= errors["p99"] <= errors["max"]
    assert cli.read("run.json")["state"] == "ended"


@pytest.mark.darcy
def test_the_loss_falls(watched):
    losses = [record["loss"] for record in watched[0].records() if record["loss"] is not None]
    assert losses[-1] < 0.6 * losses[0]


def test_the_ledger_holds_every_simulation_once(watched):
    cli = watched[0]
    cli.assert_every_simulation_once()
    assert len(cli.delivered_ids()) == cli.read("summary.json")["delivered"]


def test_metrics_hold_the_names_and_counters_rise(watched):
    _, watch, _ = watched
    assert len(watch.scrapes) > 3
    # A fast run may be over before an error is scraped, which is there from the first validation on.
    assert {key[0] for key in watch.scrapes[-1]} >= METRICS - {"penstock_validation_error"}
    for counter in ("penstock_samples_unique_total", "penstock_samples_trained_total"):
        values = [scrape[(counter,)] for scrape in watch.scrapes]
        assert values == sorted(values) and values[-1] > values[0]
    outcomes = {key[1][1] for key in watch.scrapes[-1] if key[0] == "penstock_simulations_total"}
    assert outcomes == {"delivered", "failed", "retried"}


def test_tensorboard_has_the_records(watched):
    cli, _, result = watched
    assert "gets no more" not in result.stdout
    reader = EventAccumulator(str(cli.latest / "tensorboard"), {"scalars": 0, "images": 0}).Reload()
    for name, key in (("training/loss", "loss"), ("stream/samples", "unique"), ("buffer/samples", "buffer_samples")):
        values = {event.step: event.value for event in reader.Scalars(name)}
        last_at = {record["step"]: record[key] for record in cli.records() if record[key] is not None}
        assert values == pytest.approx({step: last_at[step] for step in values}, rel=1e-6) and max(values) == 150
    errors, summary = reader.Scalars("errors/relative_l2/mean"), cli.read("summary.json")
    assert errors[-1].value == pytest.approx(summary["validation"]["relative_l2"]["mean"], rel=1e-6)
    assert reader.Images("worst case")[-1].step == 150


def test_penstock_listens_on_localhost_alone(watched):
    """The driver's own port; those of Ray are bound to all interfaces."""
    cli, watch, _ = watched
    port = int(cli.read("run.json")["metrics"].rsplit(":", 1)[1].split("/")[0])
    assert ("127.0.0.1", port) in watch.addresses
    assert {ip for ip, p in watch.addresses if p == port} == {"127.0.0.1"}


def test_what_listens_is_what_the_page_on_security_lists(watched):
    _, watch, _ = watched
    listening = watch.listening - {("idle", "every interface")}  # a process of Ray that is not ours yet
    listed = documented()
    assert listening <= listed.keys()
    assert {each for each, may_be_taken in listed.items() if not may_be_taken} <= listening


def test_nothing_starts_that_no_run_needs(watched):
    _, watch, _ = watched
    helpers = ("/monitor.py", "/log_monitor.py", "/dashboard.py")
    assert not [line for line in watch.command_lines for name in helpers if name in line]


def test_the_token_is_in_no_file_and_on_no_command_line(watched):
    cli, watch, _ = watched
    (token,) = watch.tokens - {None}
    assert len(token) == 64
    assert not [line for line in watch.command_lines if token in line]
    assert not [path for path in cli.latest.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]


@pytest.mark.darcy
def test_disk_use_stays_bounded_and_nothing_is_spilled(watched):
    """Two buffers, keep + 1 weights, the optimizer's two moments twice, the validation set, and little else."""
    cli, watch, _ = watched
    buffer = 128 * 2 * 16 * 16 * 4
    newest = max((cli.latest / "checkpoints").iterdir(), key=lambda path: int(path.name))
    weights = (newest / "weights.safetensors").stat().st_size
    optimizer = (newest / "optimizer.safetensors").stat().st_size
    validation = sum(path.stat().st_size for path in (cli.latest / "validation.zarr").rglob("*") if path.is_file())
    assert len(list((cli.latest / "checkpoints").iterdir())) <= 3
    assert max(watch.disk) < 2 * buffer + 3 * weights + 2 * optimizer + validation + 200_000
    assert watch.spilled == []


def test_nothing_of_ray_is_left(watched):
    _, watch, _ = watched
    assert watch.session_folders and not any(folder.exists() for folder in watch.session_folders)


@pytest.mark.darcy
def test_validation_is_reproducible_and_apart_from_training(watched):
    arrays, _ = zarr_store.read(watched[0].latest / "validation.zarr")
    assert arrays["simulation"].tolist() == list(range(16))
    assert arrays["coefficient"].shape == arrays["solution"].shape == (16, 16, 16)
    assert len({row.tobytes() for row in arrays["coefficient"]}) == 16


def test_monitor_shows_a_finished_run(watched):
    result = watched[0].run("monitor")
    assert result.returncode == 0 and result.stderr == ""
    assert "training.stop_after.steps is reached" in result.stdout and "penstock export runs/tiny-" in result.stdout
    summary = watched[0].read("summary.json")
    rates = [summary[f"{kind}_per_train_s"] for kind in ("unique", "trained")]
    assert "samples/s {} unique, {} trained".format(*map(digits, rates)) in result.stdout


LOAD_WITH_TORCH_ALONE = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"penstock", "ray", "zarr", "petsc4py", "dolfinx", "pydantic", "safetensors"}:
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Refuse())
import torch
extra = {"card.json": ""}
module = torch.export.load(sys.argv[1], extra_files=extra).module()
tensors = torch.load(sys.argv[2], weights_only=True)
solution = module(coefficient=tensors["coefficient"])["solution"]
error = (solution - tensors["solution"]).flatten(1).norm(dim=1) / tensors["solution"].flatten(1).norm(dim=1)
fine = module(coefficient=tensors["fine"])["solution"]
torch.save({"error": error, "fine": fine}, sys.argv[3])
print(extra["card.json"] if isinstance(extra["card.json"], str) else extra["card.json"].decode())
"""


@pytest.mark.darcy
def test_the_exported_file_needs_torch_alone(watched, tmp_path):
    """It gives the validation's numbers at a batch that was not exported, and the model's fields at a finer grid."""
    cli = watched[0]
    result = cli.run("export", "--output", tmp_path / "tiny.pt2", "--json")
    assert result.returncode == 0, result.stderr
    card = json.loads((tmp_path / "tiny.card.json").read_text())
    (written,) = map(json.loads, result.stdout.splitlines())
    assert written["kind"] == "result" and written["validation"] == card["validation"]
    assert [(cli.folder / name).resolve() for name in written["wrote"]] == [
        tmp_path / "tiny.pt2",
        tmp_path / "tiny.card.json",
    ]
    arrays, _ = zarr_store.read(cli.latest / "validation.zarr")
    rng = np.random.default_rng(0)
    tensors = {name: torch.from_numpy(arrays[name]) for name in ("coefficient", "solution")}
    tensors["fine"] = torch.from_numpy(rng.choice([3.0, 12.0], (5, 24, 24)).astype(np.float32))
    torch.save(tensors, tmp_path / "tensors.pt")
    (tmp_path / "load.py").write_text(LOAD_WITH_TORCH_ALONE)
    answer = subprocess.run(
        [sys.executable, "load.py", "tiny.pt2", "tensors.pt", "out.pt"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(answer.stdout) == card
    assert [spec["name"] for spec in card["inputs"]] == ["coefficient"]
    out = torch.load(tmp_path / "out.pt", weights_only=True)
    errors = card["validation"]["relative_l2"]
    assert out["error"].mean().item() == pytest.approx(errors["mean"], rel=1e-5)
    assert out["error"].max().item() == pytest.approx(errors["max"], rel=1e-5)
    summary = cli.read("summary.json")["validation"]["relative_l2"]
    if checkpoint.best(cli.latest / "checkpoints") == 150:
        assert errors["mean"] == pytest.approx(summary["mean"], rel=1e-5)

    from penstock.orchestrator.plan import resolve
    from penstock.orchestrator.store.run_folder import RunFolder
    from penstock.orchestrator.store.trained import load_surrogate

    folder = RunFolder.open(cli.latest)
    surrogate, _ = load_surrogate(folder, resolve(folder.config()))
    with torch.no_grad():
        eager = surrogate(coefficient=tensors["fine"])["solution"]
    torch.testing.assert_close(out["fine"], eager, rtol=1e-5, atol=1e-5 * eager.abs().max().item())


@pytest.mark.darcy
def test_predict_solves_new_draws_and_draws_them(watched, tmp_path):
    """More of them than a batch holds."""
    cli, output = watched[0], tmp_path / "elsewhere"
    result = cli.run("predict", "--num", "11", "--output", output, "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    arrays, _ = zarr_store.read(output / "predictions.zarr")
    difference = (arrays["solution_predicted"] - arrays["solution"]).reshape(11, -1)
    errors = np.linalg.norm(difference, axis=1) / np.linalg.norm(arrays["solution"].reshape(11, -1), axis=1)
    np.testing.assert_allclose(arrays["relative_l2"], errors, rtol=1e-5)
    assert errors.mean() < 0.5
    validation, _ = zarr_store.read(cli.latest / "validation.zarr")
    assert not any((arrays["coefficient"][0] == row).all() for row in validation["coefficient"])
    picture = (output / "predictions.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


def test_predict_refuses_a_file_to_write_to(watched, tmp_path):
    (tmp_path / "file").touch()
    result = watched[0].run("predict", "--output", str(tmp_path / "file"))
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert f"can't write to {tmp_path / 'file'}: File exists: give another --output" in result.stderr
