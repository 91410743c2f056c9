"""Several machines on one, by Linux namespaces: each with an address, a process table and a /dev/shm."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from penstock.errors import PenstockError

INIT = """
hostname "$0" && mount -t tmpfs -o size=512m tmpfs /dev/shm && mount --bind "$1" /etc/hosts && echo up
trap : TERM
while :; do sleep 1000 & wait $!; done
"""


class Machine:
    """One of them.

    Args:
        name: its host name.
        address: its address.
        network: name of its network namespace.
        cable: name of its port of the switch.
        switch: name of the switch's network namespace.
        hosts: a file for its /etc/hosts.
    """

    def __init__(self, name: str, address: str, *, network: str, cable: str, switch: str, hosts: Path):
        self.name = name
        self.address = address
        self.network = network
        self._cable = cable
        self._switch = switch
        self._hosts = hosts
        self._outer: subprocess.Popen | None = None
        self._init: psutil.Process | None = None

    def boot(self) -> None:
        """Start it, with no process but its first."""
        apart = ("unshare", "--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc")
        command = ("nsenter", f"--net=/run/netns/{self.network}", *apart, "bash", "-c", INIT, self.name, self._hosts)
        self._outer = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if self._outer.stdout.readline() != "up\n":
            raise PenstockError("no namespaces can be made here: root has to do it, and not in a container")
        (self._init,) = psutil.Process(self._outer.pid).children()

    def words(self, folder: Path) -> list[str]:
        """The words before a command that is to run on it, in a folder."""
        apart = ("--net", "--uts", "--ipc", "--mount", "--pid")
        return ["nsenter", "-t", str(self._init.pid), *apart, f"--wd={folder}"]

    def processes(self) -> list[psutil.Process]:
        """Its living processes but the first, and what that one waits with."""
        own, found = os.readlink(f"/proc/{self._init.pid}/ns/pid"), []
        for process in psutil.process_iter(["name", "status"]):
            try:
                is_here = os.readlink(f"/proc/{process.pid}/ns/pid") == own
            except OSError:
                continue
            if (
                is_here
                and process.info["status"] != psutil.STATUS_ZOMBIE
                and process.info["name"] not in ("bash", "sleep")
            ):
                found.append(process)
        return found

    def kill(self) -> None:
        """End all of its processes at once, as a lost power supply does."""
        if self._init is not None:
            self._init.kill()
            self._outer.wait()
            self._outer.stdout.close()
            self._init = None

    def cut(self) -> None:
        """Take its cable out: nobody resets a connection."""
        _ip("-n", self._switch, "link", "set", self._cable, "down")

    def heal(self) -> None:
        """Put its cable back."""
        _ip("-n", self._switch, "link", "set", self._cable, "up")


@contextmanager
def machines(names: Sequence[str]) -> Iterator[list[Machine]]:
    """Machines for the length of a `with` block.

    Args:
        names: their host names.

    Yields:
        The machines, to be booted. Nothing is added to the network of this one.

    Raises:
        PenstockError: they can't be made.
    """
    with tempfile.NamedTemporaryFile("w", prefix="hosts-") as hosts:
        switch, made = f"chaos-{os.getpid()}", []
        try:
            _ip("netns", "add", switch)
            _ip("-n", switch, "link", "add", "br0", "type", "bridge")
            _ip("-n", switch, "link", "set", "br0", "up")
            hosts.write("127.0.0.1 localhost\n")
            for number, name in enumerate(names, 1):
                network, cable, address = f"{switch}-{name}", f"port{number}", f"10.77.0.{number}"
                _ip("netns", "add", network)
                own = {"network": network, "cable": cable, "switch": switch, "hosts": Path(hosts.name)}
                made.append(Machine(name, address, **own))
                _ip("link", "add", cable, "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", network)
                _ip("-n", switch, "link", "set", cable, "master", "br0", "up")
                _ip("-n", network, "addr", "add", f"{address}/24", "dev", "eth0")
                for device in ("eth0", "lo"):
                    _ip("-n", network, "link", "set", device, "up")
                hosts.write(f"{address} {name}\n")
            hosts.flush()
            yield made
        finally:
            for machine in made:
                machine.kill()
            for network in (*(machine.network for machine in made), switch):
                subprocess.run(["ip", "netns", "delete", network], capture_output=True)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise PenstockError(f"ip {' '.join(arguments)}: {done.stderr.strip()}", exit_code=1)
