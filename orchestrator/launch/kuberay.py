"""`penstock launch kuberay`: a run as a RayJob in Kubernetes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.config.kuberay import PodSection
from penstock.orchestrator.launch.in_cluster import script
from penstock.orchestrator.launch.job import Job, State
from penstock.orchestrator.launch.launcher import Launcher
from penstock.orchestrator.store.run_folder import RUNS, RunFolder

NEEDED = ("image", "claim", "mount")
LONGEST_NAME = 47  # KubeRay adds to it
STATES = {"Running": State.RUNNING, "Complete": State.GONE, "Failed": State.GONE}
ANSWERS_WITHIN_S = 30


class KubeRay(Launcher):
    """A RayJob, made from deploy/kuberay/rayjob.yaml. See `Launcher`."""

    FILE = "rayjob.yaml"
    begins_again = True  # see launch.kuberay.retries

    @classmethod
    def adapted(cls, config: Config) -> Config:
        """See `Launcher.adapted`.

        The driver joins the Ray of its pod, and solvers are as many as the pods have CPUs. Raises PenstockError where
        keys are missing or do not fit together.
        """
        section, ranks = config.launch.kuberay, config.solver.ranks
        pods = section.solvers
        for key in NEEDED:
            if getattr(section, key) is None:
                raise PenstockError(f"launch.kuberay.{key}: missing; see docs/clusters.md")
        if not RUNS.resolve().is_relative_to(section.mount):
            raise PenstockError(
                f"launch.kuberay.mount: {RUNS.resolve()} is not under {section.mount}, where the pods see the claim: "
                "launch from a folder there"
            )
        if ranks > pods.cpus:
            raise PenstockError(
                f"solver.ranks = {ranks}: a pod of solvers has {pods.cpus} CPUs (launch.kuberay.solvers.cpus), and a "
                "worker's ranks are in one pod"
            )
        workers, most = config.solver.workers, pods.pods * (pods.cpus // ranks)
        if workers == "auto":
            workers = most
        elif isinstance(workers, int) and workers > most:
            raise PenstockError(
                f"solver.workers = {workers}: the pods of launch.kuberay.solvers have CPUs for {most}; raise pods or "
                "cpus"
            )
        solver = config.solver.model_copy(update={"workers": workers})
        cluster = config.cluster.model_copy(update={"address": "auto"})
        return config.model_copy(update={"solver": solver, "cluster": cluster})

    def require_ready(self) -> None:
        """See `Launcher.require_ready`."""
        if shutil.which("kubectl") is None:
            raise PenstockError("there is no kubectl on the path: install it, or take --dry-run's manifest to one")
        if os.getuid() == 0:
            raise PenstockError("pods run as the user who launches, and never as root: launch as another user")

    def text(self, folders: Sequence[Path]) -> str:
        """A manifest; see `Launcher.text`."""
        (folder,) = folders
        return yaml.dump(self._manifest(folder), Dumper=_Dumper, sort_keys=False, width=120)

    def submit(self, folders: Sequence[RunFolder]) -> list[str]:
        """See `Launcher.submit`."""
        (folder,) = folders
        self._kubectl("apply", "-f", str(folder.path / self.FILE))
        return [_name_of(folder.path)]

    def state(self, job: Job, folder: RunFolder) -> State:
        """See `Launcher.state`."""
        words = self._status(job, "{.metadata.name} {.status.jobDeploymentStatus}").split()
        return STATES.get(words[-1], State.WAITING) if words else State.GONE

    def stop(self, job: Job, folder: RunFolder) -> None:
        """See `Launcher.stop`.

        The operator stops the driver before it removes the pods, which wait for that: see the template.
        """
        self._kubectl("delete", "rayjob", job.id, "--ignore-not-found", "--wait=false")

    @classmethod
    def resume_command(cls, job: Job, folder: RunFolder) -> str:
        """See `Launcher.resume_command`.

        What there is of the old RayJob stands in the way of another life.
        """
        manifest = shlex.quote(os.path.relpath(folder.path / cls.FILE))
        return f"kubectl delete --ignore-not-found -f {manifest} && kubectl create -f {manifest}"

    def output(self, job: Job, folder: RunFolder) -> str:
        """See `Launcher.output`.

        What could not be written to the folder is in the RayJob's status.
        """
        return super().output(job, folder) or self._status(job, "{.status.message}")

    def _status(self, job: Job, path: str) -> str:
        return self._kubectl("get", "rayjob", job.id, "--ignore-not-found", "-o", f"jsonpath={path}")

    def _kubectl(self, *arguments: str) -> str:
        """What kubectl prints. Raises PenstockError where it fails."""
        namespace = self.config.launch.kuberay.namespace
        command = ["kubectl", f"--request-timeout={ANSWERS_WITHIN_S}s", "--namespace", namespace, *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise PenstockError(f"can't run kubectl: {error.strerror}") from error
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            raise PenstockError(f"kubectl {arguments[0]}: {said[-1]}")
        return done.stdout

    def _manifest(self, folder: Path) -> dict[str, Any]:
        """The template, filled in for a run folder."""
        template = yaml.safe_load((files("penstock.deploy") / "kuberay" / self.FILE).read_text())
        job = json.loads(json.dumps(template))  # what the template shares, each pod has for itself from here on
        section, name = self.config.launch.kuberay, _name_of(folder)
        job["metadata"] |= {"name": name, "namespace": section.namespace}
        spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
        spec["entrypoint"] = shlex.join(["bash", "-c", script(self.config.launch.prologue, folder)])
        spec["backoffLimit"] = section.retries
        cluster["rayVersion"] = version("ray")
        head, (learner, solvers) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
        for group in (head, learner, solvers):
            self._fill(group["template"], folder)
        _give(learner, section.learner)
        learner["rayStartParams"]["resources"] = json.dumps(json.dumps({"learner": section.learner.cpus}))
        if section.learner.gpus:
            for bound in _container(learner)["resources"].values():
                bound["nvidia.com/gpu"] = section.learner.gpus
        _give(solvers, section.solvers)
        solvers["rayStartParams"]["num-cpus"] = str(section.solvers.cpus)
        pods, most = section.solvers.pods, section.solvers.max_pods
        solvers |= {"replicas": pods, "minReplicas": pods, "maxReplicas": most or pods}
        if most is not None:
            cluster["enableInTreeAutoscaling"] = True
            cluster["autoscalerOptions"] = {"securityContext": _container(head)["securityContext"]}
        return job

    def _fill(self, template: dict[str, Any], folder: Path) -> None:
        """Fill in what all pods have: image, user, volume, and the file to wait for."""
        section, pod = self.config.launch.kuberay, template["spec"]
        template["metadata"]["labels"]["penstock/run"] = _name_of(folder)
        pod["securityContext"] |= {"runAsUser": os.getuid() or 1000, "runAsGroup": os.getgid(), "fsGroup": os.getgid()}
        pod["volumes"][0]["persistentVolumeClaim"]["claimName"] = section.claim
        (container,) = pod["containers"]
        container["image"] = section.image
        container["volumeMounts"][0]["mountPath"] = section.mount
        if "lifecycle" in container:
            file = shlex.quote(str(folder / "run.json"))
            command = f'while grep -q \'"state": "running"\' {file}; do sleep 1; done'
            container["lifecycle"]["preStop"]["exec"]["command"][-1] = command


def _container(group: dict[str, Any]) -> dict[str, Any]:
    return group["template"]["spec"]["containers"][0]


def _give(group: dict[str, Any], pod: PodSection) -> None:
    """Give the pods of a group what its section asks for."""
    for bound in _container(group)["resources"].values():
        bound |= {"cpu": str(pod.cpus), "memory": pod.memory}
    if pod.node_selector:
        group["template"]["spec"]["nodeSelector"] = dict(pod.node_selector)
    if pod.tolerations:
        group["template"]["spec"]["tolerations"] = [dict(toleration) for toleration in pod.tolerations]


def _name_of(folder: Path) -> str:
    """The name of a run folder's job, a label of DNS that begins with a letter.

    Of a long one the end is kept, which has the time.
    """
    name = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")
    return re.sub(r"^[^a-z]+", "", name[-LONGEST_NAME:]) or name


class _Dumper(yaml.SafeDumper):
    """Text of several lines as it is read, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _as_read(dumper: _Dumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _as_read)
