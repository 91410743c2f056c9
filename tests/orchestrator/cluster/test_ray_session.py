"""What a run does around Ray, without Ray."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from penstock.errors import PenstockError
from penstock.orchestrator.cluster import ray_session as cluster
from penstock.orchestrator.cluster import ray_watch
from penstock.orchestrator.cluster.joined import fault_in, make_probe, require_head
from penstock.orchestrator.cluster.ray_session import noted_signals
from penstock.orchestrator.cluster.ray_watch import RayWatch
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.run.driver import start
from penstock.orchestrator.run.logs import native_stderr_to
from tests.support.waiting import wait_until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_whatever_its_handler_does(number):
    before = signal.signal(number, lambda *_: None)  # as one whose exception a callback of Python's forgot
    try:
        with noted_signals() as noted:
            assert noted() is None
            os.kill(os.getpid(), number)
            assert noted() == number and noted() is None
    finally:
        signal.signal(number, before)
    assert signal.set_wakeup_fd(-1) == -1


def test_rays_logs_are_bounded_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.setattr(os, "environ", {"RAY_ROTATION_BACKUP_COUNT": "7"})
    cluster.set_environment(None)
    assert os.environ["RAY_ROTATION_MAX_BYTES"] == "16000000" and os.environ["RAY_ROTATION_BACKUP_COUNT"] == "7"


OWNER = """
import os, sys
from penstock.orchestrator.cluster import ray_session as cluster
with cluster._session_folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


def owner():
    """A process that has a session folder, and the folder."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", OWNER], stdin=pipe, stdout=pipe, text=True)
    return process, Path(process.stdout.readline().strip())


def test_the_sweep_takes_the_session_folders_of_dead_drivers_alone(tmp_path, monkeypatch):
    """Whatever their names say: the live one has the process id of nobody, as one of another namespace may have."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(cluster.tempfile, "tempdir", None)
    (live, live_folder), (dead, dead_folder) = owner(), owner()
    foreign = live_folder.rename(tmp_path / "penstock-4194305-live")
    unmade = tmp_path / "penstock-4194305-unmade"  # between its making and its lock
    unmade.mkdir()
    (dead_folder / "session_x").mkdir()
    dead.kill()
    dead.communicate()
    cluster._sweep()
    assert {path.name for path in tmp_path.iterdir()} == {foreign.name, unmade.name}
    live.kill()
    live.communicate()
    cluster._sweep()
    assert list(tmp_path.iterdir()) == [unmade]


def test_a_session_folder_is_removed_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.tempfile, "tempdir", str(tmp_path))
    with cluster._session_folder() as folder:
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def sleeper():
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])


def test_the_part_of_ray_that_died_is_named():
    """The raylet dies of its agent: when both are seen dead at once the agent is blamed."""
    first, agent, raylet = sleeper(), sleeper(), sleeper()
    watch = RayWatch({agent.pid: "dashboard agent", raylet.pid: "raylet", first.pid: "control service"}, None, print)
    watch.check()
    first.kill()
    wait_until(lambda: watch.fault)
    with pytest.raises(PenstockError, match=rf"Ray's control service \(pid {first.pid}\) died"):
        watch.check()
    for process in (agent, raylet):
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    both = RayWatch({agent.pid: "dashboard agent", raylet.pid: "raylet"}, None, print)
    wait_until(lambda: both.fault)
    assert both.fault == f"Ray's dashboard agent (pid {agent.pid}) died"
    for process in (first, agent, raylet):
        process.wait()


def test_what_dies_at_the_end_is_no_fault():
    part = sleeper()
    watch = RayWatch({part.pid: "raylet"}, None, print)
    watch.stop()
    part.kill()
    part.wait()
    for thread in threading.enumerate():
        if thread.name == "RayWatch":
            thread.join()
    watch.check()


def test_a_control_service_that_falls_silent_is_told_and_then_a_fault(monkeypatch):
    monkeypatch.setattr(ray_watch, "SAY_AFTER_S", 0.0)
    monkeypatch.setattr(ray_watch, "BACK_WITHIN_S", 2.0)
    lines = []
    with socket.create_server(("127.0.0.1", 0)) as service:
        address = f"127.0.0.1:{service.getsockname()[1]}"
        watch = RayWatch({}, address, lines.append)
        service.accept()[0].close()
        watch.check()
    wait_until(lambda: watch.fault)
    assert f"Ray's control service at {address} does not answer ([Errno 111] Connection refused)" == watch.fault
    assert lines == [f"{watch.fault}: the run waits for it for 2 s"]


@pytest.mark.parametrize(
    "address", ["127.0.0.1:{free}", "no.such.host.invalid:6379", "ray://127.0.0.1:10001", "local", "h:x"]
)
def test_an_address_where_no_head_answers_is_one_line(address):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with pytest.raises(PenstockError, match=r"cluster\.address: ") as told:
        require_head(address.format(free=free))
    assert told.value.exit_code == 2 and "\n" not in str(told.value)


def test_what_is_wrong_with_a_node_is_said(tmp_path):
    probe = make_probe()
    assert "does not see" in fault_in(probe(str(tmp_path)), tmp_path)
    (tmp_path / "config.yaml").touch()
    (tmp_path / "logs").mkdir()
    facts = probe(str(tmp_path))
    assert fault_in(facts, tmp_path) is None
    assert "has no penstock" in fault_in(facts | {"version": None}, tmp_path)
    assert "has penstock 0.0.1, and here" in fault_in(facts | {"version": "0.0.1"}, tmp_path)
    assert "can't write" in fault_in(facts | {"writes": False}, tmp_path)


def test_a_raylet_that_is_slow_to_appear_is_waited_for(monkeypatch):
    """And not where it has died."""
    answers = iter([RuntimeError("no node"), RuntimeError("no node"), {"node": 1}, RuntimeError("no node")])

    def get_node(*arguments):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    from ray._private import services

    monkeypatch.setattr(services, "get_node", get_node)
    with cluster._patience():
        monkeypatch.setattr(cluster, "_raylet_lives", lambda: True)
        assert services.get_node("address", "id") == {"node": 1}
        monkeypatch.setattr(cluster, "_raylet_lives", lambda: False)
        with pytest.raises(RuntimeError):
            services.get_node("address", "id")
    assert services.get_node is get_node


def test_what_libraries_print_on_standard_error_goes_to_the_log(tmp_path, capfd):
    with (tmp_path / "log").open("a") as log, native_stderr_to(log):
        os.write(2, b"native\n")
        print("python", file=sys.stderr)
    os.write(2, b"after\n")
    assert "native\n" in (tmp_path / "log").read_text() and capfd.readouterr().err.endswith("after\n")


def test_a_users_file_may_import_ray(tmp_path, monkeypatch):
    """Ray reads its token when it is first imported: without one it would ask for it without end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {key: value for key, value in os.environ.items() if not key.startswith("RAY_")})
    Path("mine.py").write_text("import os; raise RuntimeError(f'a token of {len(os.environ[\"RAY_AUTH_TOKEN\"])}')")
    with pytest.raises((PenstockError, RuntimeError), match="a token of 64"):
        limit = {"stop_after": {"steps": 1}}
        start(Config.model_validate({"problem": {"name": "./mine.py:Mine"}, "training": limit}), on_folder=print)
