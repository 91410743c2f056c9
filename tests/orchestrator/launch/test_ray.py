"""Jobs of a Ray cluster's dashboard: one that answers as Ray's does, and what is refused."""

import json
import shlex
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from penstock.orchestrator.cli.app import app
from penstock.orchestrator.config.config import load_config
from penstock.orchestrator.launch import launching
from penstock.orchestrator.launch.job import State
from tests.support.refusals import refusal

TOKEN = "0123456789abcdef" * 4


@pytest.fixture
def config(config, monkeypatch):
    """The small one, in a home without a token but that of the environment."""
    monkeypatch.setenv("HOME", str(config.parent))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    return config


@pytest.fixture
def dashboard():
    """The part of Ray 2.60's REST interface that launching uses; `jobs` is what it was sent, by id."""
    jobs, stopped = {}, []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def _answer(self, code, content):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

        def _is_allowed(self):
            if (said := self.headers["Authorization"]) == f"Bearer {TOKEN}":
                return True
            self._answer(401 if said is None else 403, b"Unauthorized")
            return False

        def do_GET(self):
            if not self._is_allowed():
                return
            name, _, what = self.path.removeprefix("/api/jobs/").partition("/")
            if self.path == "/api/version":
                self._answer(200, {"version": "4", "ray_version": "2.60.0"})
            elif name not in jobs:
                self._answer(404, f"Job {name} does not exist".encode())
            elif what == "logs":
                self._answer(200, {"logs": "penstock: head cannot write to it\n"})
            else:
                self._answer(200, {"status": jobs[name]["status"], "submission_id": name})

        def do_POST(self):
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._is_allowed():
                return
            if self.path == "/api/jobs/":
                name = content["submission_id"]
                if name in jobs:
                    self._answer(500, b"Traceback\nValueError: Please use a different submission_id.\n")
                    return
                jobs[name] = content | {"status": "PENDING"}
                self._answer(200, {"submission_id": name})
            else:
                stopped.append(self.path)
                self._answer(200, {"stopped": True})

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.url, server.jobs, server.stopped = f"http://127.0.0.1:{server.server_port}", jobs, stopped
        yield server
        server.shutdown()
        thread.join()


def launched_at(config, url):
    return launching.launch(load_config(config, (f"cluster.address={url}",)), "ray", 1)


def test_a_job_of_the_dashboard_is_submitted_asked_after_and_stopped(config, dashboard):
    ((folder, job),) = launched_at(config, f"{dashboard.url}/")
    name = folder.path.name
    assert job.id == f"{dashboard.url}/#/jobs/{name}"
    sent = dashboard.jobs[name]
    assert shlex.split(sent["entrypoint"]) == ["bash", "-c", (folder.path / "job.sh").read_text()]
    assert sent["entrypoint"].splitlines()[-2] == 'exec python -m penstock resume "$folder" cluster.address=auto'
    assert sent["runtime_env"] == {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "25"}}
    folder.write_config(load_config(config, ("cluster.address=auto",)))  # as the driver does
    words = {"PENDING": State.WAITING, "RUNNING": State.RUNNING, "STOPPED": State.GONE, "FAILED": State.GONE}
    for word, state in words.items():
        sent["status"] = word
        assert launching.state_of(folder, job) is state
    sent["status"] = "RUNNING"
    folder.update_run(state="running")
    assert launching.stop(folder) == f"ray job {job.id} writes a checkpoint and ends"
    assert dashboard.stopped == [f"/api/jobs/{name}/stop"]
    assert CliRunner().invoke(app, ["logs"]).output == "penstock: head cannot write to it\n"
    (folder.logs / "job.log").write_text("step 3\n")
    assert CliRunner().invoke(app, ["logs"]).output.endswith(" job | step 3\n")
    del dashboard.jobs[name]  # as after a restart of the cluster
    assert launching.state_of(folder, job) is State.GONE


def test_the_token_is_found_where_ray_looks(config, dashboard, monkeypatch):
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    message = "our token is missing or not that of the Ray cluster"
    assert message in refusal(launched_at, config, dashboard.url)
    (config.parent / ".ray").mkdir()
    (config.parent / ".ray" / "auth_token").write_text(f"{TOKEN}\n")
    launched_at(config, dashboard.url)
    (config.parent / "token").write_text("another")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(config.parent / "token"))
    assert message in refusal(launched_at, config, dashboard.url)


def test_what_the_cluster_refuses_is_one_line(config, dashboard):
    ((folder, _),) = launched_at(config, dashboard.url)
    ray = launching.launcher_class("ray")(load_config(config, (f"cluster.address={dashboard.url}",)))
    message = refusal(ray.submit, [folder])
    assert message == f"the Ray cluster at {dashboard.url} refuses: ValueError: Please use a different submission_id."


def test_no_cluster_and_no_dashboard_are_one_line_before_a_folder_is_made(config):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert "no dashboard of Ray answers at" in refusal(launched_at, config, f"http://127.0.0.1:{free}")
    assert "cluster.address: missing" in refusal(launching.launch, load_config(config), "ray", 1)
    assert not (config.parent / "runs").exists()


def test_another_server_is_no_dashboard(config):
    class Other(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        assert "is no dashboard of Ray" in refusal(launched_at, config, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_dry_run_shows_the_script_of_either_way(config):
    def script(address):
        return launching.dry_run(load_config(config, (f"cluster.address={address}",)), "ray", 1)

    assert script("http://head:8265").endswith('exec python -m penstock resume "$folder" cluster.address=auto\n')
    assert "/python -m penstock resume" in script("head:6379")
