"""A Ray cluster that others started, on this machine: what it lacks is said in one line."""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import wait_until

TOKEN = "0123456789abcdef" * 4
HIDDEN = "import sys; sys.modules['penstock'] = None"
HEAD = """
import sys

del sys.modules["penstock"]  # hidden from all processes of this Ray but this one
from penstock.orchestrator.cluster.ray_session import _patience
from ray.scripts.scripts import main

sys.argv[0] = "ray"
with _patience():
    main()
"""


@pytest.fixture(scope="module")
def head_without_penstock(shared_cli):
    """The address of a cluster of one node with two CPUs, whose Python lacks penstock."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: the paths of Ray's sockets must end at 107 characters
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    (folder / "sitecustomize.py").write_text(HIDDEN)
    options = ("--head", "--node-ip-address=127.0.0.1", f"--port={address.rpartition(':')[2]}", "--num-cpus=2")
    options += ("--object-store-memory=150000000", f"--temp-dir={folder}", "--include-dashboard=false", "--block")
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": str(folder)}
    with (folder / "out.txt").open("w") as out:
        command = [sys.executable, "-c", HEAD, "start", *options]
        process = subprocess.Popen(command, env=shared_cli.environment | own, stdout=out, stderr=out, cwd=folder)
    while "Ray runtime started" not in (folder / "out.txt").read_text():
        assert process.poll() is None, (folder / "out.txt").read_text()
        time.sleep(0.1)
    yield address
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    shutil.rmtree(folder)


def test_what_a_joined_cluster_lacks_is_one_line(cli, head_without_penstock):
    """What needs no cluster is in tests/orchestrator/cluster/test_ray_session.py."""
    address = head_without_penstock

    def refusal(*overrides, token=TOKEN):
        cli.environment["RAY_AUTH_TOKEN"] = token
        result = cli.run("train", "tiny.yaml", f"cluster.address={address}", *overrides)
        assert result.returncode == 2, result.stderr
        cli.assert_one_line(result)
        return result.stderr

    assert f"our token is missing or not that of the cluster at '{address}'" in refusal(token="f" * 64)
    text = refusal("training.device=cuda")
    assert "asks for 1 CPU and 1 GPU (training.device: cuda), which no node of the cluster has: node " in text
    assert text.endswith("has 2 of 2 CPUs free\n")
    assert "has no penstock: install" in refusal()
    assert cli.read("run.json")["state"] == "failed" and "has no penstock" in cli.read("run.json")["cause"]


@pytest.mark.slow  # three commands that import torch, and a driver that joins
def test_a_launched_driver_says_what_the_cluster_lacks(cli, head_without_penstock):
    """A run that goes through is one of `launch local` that joins: the driver is the same."""
    launch = ("launch", "ray", "tiny.yaml", f"cluster.address={head_without_penstock}")
    cli.environment["RAY_AUTH_TOKEN"] = "f" * 64
    cli.assert_one_line(cli.run(*launch), "our token is missing or not that of the cluster")
    assert not (cli.folder / "runs").exists()
    cli.environment["RAY_AUTH_TOKEN"] = TOKEN
    result = cli.run(*launch)
    assert result.returncode == 0 and result.stdout.startswith("ray job "), result.stderr
    wait_until(lambda: cli.read("run.json")["state"] == "failed", timeout_s=200.0)
    assert "has no penstock: install" in cli.run("logs", "--follow").stdout
