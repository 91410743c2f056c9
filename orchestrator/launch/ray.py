"""`penstock launch ray`: a run in a Ray cluster that others started."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.launch.dashboard import Dashboard
from penstock.orchestrator.launch.in_cluster import STOP_WITHIN_S, script
from penstock.orchestrator.launch.job import Job, State
from penstock.orchestrator.launch.local import Local
from penstock.orchestrator.store.run_folder import RunFolder

STATES = {"PENDING": State.WAITING, "RUNNING": State.RUNNING}
PAGE = "/#/jobs/"  # a job's id is the address of its page, because config.yaml will have the address that the head uses


class Ray(Local):
    """A driver on this machine, or a job of the cluster's dashboard. See `Launcher`.

    `cluster.address` decides: host:port of the control service, or http://host:port of the dashboard.
    """

    @classmethod
    def adapted(cls, config: Config) -> Config:
        """See `Launcher.adapted`. Raises PenstockError where no cluster is named."""
        if config.cluster.address is None:
            raise PenstockError(
                "cluster.address: missing; give the cluster's dashboard, as http://host:8265, or host:port of its "
                "control service if this machine is one of its nodes"
            )
        return config

    def require_ready(self) -> None:
        """See `Launcher.require_ready`."""
        if dashboard := self._dashboard():
            dashboard.require_ready()
        else:
            from penstock.orchestrator.cluster.joined import require_head
            from penstock.orchestrator.cluster.ray_session import set_environment
            from penstock.orchestrator.run.logs import native_stderr_to

            set_environment(self.config.cluster.address)
            with open(os.devnull, "w") as nowhere, native_stderr_to(nowhere):  # Ray warns there of what is an error
                require_head(self.config.cluster.address)

    def text(self, folders: Sequence[Path]) -> str:
        """A script of bash; see `Launcher.text`."""
        if self._dashboard() is None:
            return super().text(folders)
        (folder,) = folders
        return script(self.config.launch.prologue, folder)

    def submit(self, folders: Sequence[RunFolder]) -> list[str]:
        """See `Launcher.submit`."""
        if (dashboard := self._dashboard()) is None:
            return super().submit(folders)
        (folder,) = folders
        entrypoint = shlex.join(["bash", "-c", (folder.path / self.FILE).read_text()])
        dashboard.submit(folder.path.name, entrypoint, {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WITHIN_S)})
        return [f"{dashboard.url}{PAGE}{folder.path.name}"]

    def state(self, job: Job, folder: RunFolder) -> State:
        """See `Launcher.state`."""
        url, is_http, name = job.id.partition(PAGE)
        return STATES.get(Dashboard(url).status(name), State.GONE) if is_http else super().state(job, folder)

    def stop(self, job: Job, folder: RunFolder) -> None:
        """See `Launcher.stop`."""
        url, is_http, name = job.id.partition(PAGE)
        if is_http:
            Dashboard(url).stop(name)
        else:
            super().stop(job, folder)

    def output(self, job: Job, folder: RunFolder) -> str:
        """See `Launcher.output`.

        A node that does not see the folder says so to Ray alone.
        """
        url, is_http, name = job.id.partition(PAGE)
        return super().output(job, folder) or (Dashboard(url).logs(name) if is_http else "")

    def _dashboard(self) -> Dashboard | None:
        address = self.config.cluster.address
        return Dashboard(address) if address.startswith(("http://", "https://")) else None
