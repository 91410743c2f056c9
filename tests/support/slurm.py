"""A Slurm of several nodes on this machine, with its files and its munge in one folder."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

CONF = """
ClusterName=penstock
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerNode=2000
KillWait=5
GresTypes=gpu
NodeName=solve[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]},{ports[2]} CPUs=6 RealMemory=9000
NodeName=learn NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs=6 RealMemory=9000 Feature=gpu Gres=gpu:2
PartitionName=cpu Nodes=solve[1-2] Default=YES
PartitionName=gpu Nodes=learn
"""
# cred_expire: how long a job waits that was queued again, two minutes by default.
NODES = ("solve1", "solve2", "learn")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")


def require_slurm() -> None:
    """Skip the test where Slurm is not installed; in CI it must be."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        reason = f"Slurm is not installed: {', '.join(missing)}; Debian has slurm-wlm slurm-wlm-basic-plugins munge"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


class Slurm:
    """Slurm's commands."""

    def __init__(self, conf: Path):
        self.environment = {"SLURM_CONF": str(conf), "PATH": f"{os.environ['PATH']}:/usr/sbin"}

    def __call__(self, *command: str) -> str:
        """What a command prints."""
        done = subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextmanager
def slurm_nodes(folder: Path) -> Iterator[Slurm]:
    """Two nodes in the partition `cpu`, and one with two GPUs on paper in `gpu`, of six CPUs each."""
    (folder / "state").mkdir()
    conf, slurm = folder / "slurm.conf", Slurm(folder / "slurm.conf")
    host, user = socket.gethostname().partition(".")[0], getpass.getuser()
    conf.write_text(CONF.format(folder=folder, host=host, user=user, ports=free_ports(1 + len(NODES))))
    (folder / "gres.conf").write_text(
        "NodeName=learn Name=gpu File=/dev/null\nNodeName=learn Name=gpu File=/dev/zero\n"
    )
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    files["seed-file"] = "munged.seed"
    try:
        slurm("munged", "--force", *(f"--{name}={folder / file}" for name, file in files.items()))
        slurm("slurmctld", "-i")
        for name in NODES:
            (folder / f"spool-{name}").mkdir()
            slurm("slurmd", "-N", name)
        wait_until(lambda: set(slurm("sinfo", "--noheader", "--Node", "--format=%t").split()) == {"idle"}, every_s=0.2)
        yield slurm
    finally:
        with suppress(AssertionError):
            slurm("scancel", f"--user={user}")
            wait_until(lambda: not slurm("squeue", "--noheader"), every_s=0.2)
        for file in folder.glob("*.pid"):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)


def free_ports(number: int) -> list[int]:
    """Ports that are free now."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports
