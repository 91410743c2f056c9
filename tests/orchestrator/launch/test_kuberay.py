"""RayJobs: the manifest against KubeRay's schema and the rules of its operator, and a kubectl that answers as told."""

import json
import os
import re
import shlex
import subprocess
from copy import deepcopy

import pytest
import yaml
from typer.testing import CliRunner

from penstock import __version__
from penstock.errors import PenstockError
from penstock.orchestrator.cli.app import app
from penstock.orchestrator.config.config import load_config
from penstock.orchestrator.launch import kuberay, launching
from penstock.orchestrator.launch.job import State
from tests.support.refusals import refusal
from tests.support.schemas import KUBERAY, Schema
from tests.support.waiting import wait_until

LAUNCH = 'launch: {kuberay: {image: "registry.example/penstock:1", claim: runs, mount: MOUNT}}'

KUBECTL = """#!/bin/bash
cd {folder}
printf '%s\\t' "$@" >>calls
echo >>calls
echo "$(<out)"
echo "$(<err)" >&2
exit "$(<code)"
"""


@pytest.fixture
def config(config):
    """The small one, with a name that is no label, and what KubeRay needs."""
    text = config.read_text().replace("name: small", "name: Small_one.2")
    config.write_text(text + LAUNCH.replace("MOUNT", str(config.parent)))
    return config


class Kubectl:
    """A program that notes its arguments."""

    def __init__(self, folder):
        self.folder = folder
        self.answer()
        (folder / "kubectl").write_text(KUBECTL.format(folder=shlex.quote(str(folder))))
        (folder / "kubectl").chmod(0o755)

    def answer(self, *, out="", err="", code=0):
        for name, content in {"out": out, "err": err, "code": code, "calls": ""}.items():
            (self.folder / name).write_text(str(content))

    @property
    def calls(self):
        common = ["--request-timeout=30s", "--namespace", "default"]
        lines = [line.split("\t")[:-1] for line in (self.folder / "calls").read_text().splitlines()]
        assert all(line[: len(common)] == common for line in lines)
        return [line[len(common) :] for line in lines]


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    return Kubectl(folder)


def manifest(config, *overrides):
    return yaml.safe_load(launching.dry_run(load_config(config, overrides), "kuberay", 1))


@pytest.fixture(scope="module")
def schema():
    if KUBERAY is None:
        pytest.skip("KubeRay's definitions do not lie in shared/kuberay beside the checkout")
    return Schema(KUBERAY / "ray.io_rayjobs.yaml", "v1")


OVERRIDES = {
    "plain": (),
    "autoscaling": ("launch.kuberay.solvers={pods: 2, max_pods: 8, cpus: 16, memory: 64Gi}",),
    "GPU": ("launch.kuberay.learner={gpus: 1, cpus: 12, tolerations: [{key: nvidia.com/gpu, operator: Exists}]}",),
    "chosen nodes": ("launch.kuberay.solvers.node_selector={pool: cpu}", "launch.kuberay.namespace=science"),
    "ranks": ("solver={ranks: 2, workers: 2}", "launch.kuberay.retries=0", "launch.prologue=export A='x y'"),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_the_manifest_is_a_rayjob(config, schema, case):
    assert not list(schema.faults(manifest(config, *OVERRIDES[case])))


def test_the_template_is_a_rayjob_by_itself(schema):
    path = kuberay.files("penstock.deploy") / "kuberay" / "rayjob.yaml"
    assert not list(schema.faults(yaml.safe_load(path.read_text())))


HEAD = "spec.rayClusterSpec.headGroupSpec"
CONTAINER = f"{HEAD}.template.spec.containers.0"
MUTATIONS = {
    "entripoint": ("spec.entripoint", "true"),
    "no kind": ("kind", None),
    "a kind of another version": ("apiVersion", "ray.io/v2"),
    "imagee": (f"{CONTAINER}.imagee", "x"),
    "a port in words": (f"{CONTAINER}.ports.0.containerPort", "a"),
    "no quantity": (f"{CONTAINER}.resources.limits.memory", "1x!"),
    "replicas in words": ("spec.rayClusterSpec.workerGroupSpecs.0.replicas", "one"),
    "no template": (f"{HEAD}.template", None),
    "another mode": ("spec.rayClusterSpec.authOptions.mode", "tokens"),
    "a parameter as a number": (f"{HEAD}.rayStartParams.num-cpus", 0),
}


@pytest.mark.parametrize("case", MUTATIONS)
def test_the_schema_refuses_what_is_wrong(config, schema, case):
    wrong = deepcopy(manifest(config))
    path, value = MUTATIONS[case]
    *way, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
    place = wrong
    for key in way:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    assert list(schema.faults(wrong))


def groups_of(job):
    cluster = job["spec"]["rayClusterSpec"]
    return {"head": cluster["headGroupSpec"]} | {group["groupName"]: group for group in cluster["workerGroupSpecs"]}


def test_what_every_pod_has(config):
    job = manifest(config, *OVERRIDES["GPU"])
    groups = groups_of(job)
    assert list(groups) == ["head", "learner", "solvers"]
    for group in groups.values():
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == "registry.example/penstock:1"
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"name": "OMP_NUM_THREADS", "value": "1"} in container["env"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {mounts[volume.pop("name")]: volume for volume in pod["volumes"]}
        assert volumes == {
            str(config.parent): {"persistentVolumeClaim": {"claimName": "runs"}},
            "/dev/shm": {"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        }
    container = groups["learner"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"cpu": "12", "memory": "16Gi", "nvidia.com/gpu": 1}
    # Ray parses the value after the shell has taken off its quotes.
    assert json.loads(shlex.split(groups["learner"]["rayStartParams"]["resources"])[0]) == {"learner": 12}
    assert [groups[name]["rayStartParams"]["num-cpus"] for name in groups] == ["0", "1", "4"]


def test_what_the_operator_asks_for_beyond_its_schema(config):
    """As in its validation.go: names of DNS-1035 with at most 47 characters, with a token the version of Ray."""
    long = manifest(config, f"name={'9-Very.long_name' * 5}")
    for job in (manifest(config), long):
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", job["metadata"]["name"])
        assert len(job["metadata"]["name"]) <= 47
    cluster = long["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"} and cluster["rayVersion"].startswith("2.60.")
    assert long["spec"]["shutdownAfterJobFinishes"] and long["spec"]["backoffLimit"] == 3


def test_bounds_switch_the_autoscaler_on(config):
    assert "enableInTreeAutoscaling" not in manifest(config)["spec"]["rayClusterSpec"]
    job = manifest(config, *OVERRIDES["autoscaling"])
    assert job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    solvers = groups_of(job)["solvers"]
    assert [solvers[key] for key in ("replicas", "minReplicas", "maxReplicas")] == [2, 2, 8]


def test_solvers_are_as_many_as_the_pods_have_cpus(config):
    def workers(*overrides):
        return kuberay.KubeRay.adapted(load_config(config, overrides)).solver.workers

    assert workers() == 4 and workers("solver.workers=3") == 3
    assert workers("launch.kuberay.solvers={pods: 2, cpus: 7}", "solver.ranks=2") == 6


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("launch.kuberay.image=null",), "launch.kuberay.image: missing"),
        (("launch.kuberay.claim=null",), "launch.kuberay.claim: missing"),
        (("launch.kuberay.mount=null",), "launch.kuberay.mount: missing"),
        (("launch.kuberay.mount=/nowhere",), "is not under /nowhere, where the pods see the claim"),
        (("solver.workers=5",), "have CPUs for 4"),
        (("solver={ranks: 8, workers: 1}",), "a pod of solvers has 4 CPUs"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_folder_is_made(config, kubectl, overrides, message):
    for ask in (launching.dry_run, launching.launch):
        assert message in refusal(ask, load_config(config, overrides), "kuberay", 1)
    assert not (config.parent / "runs").exists()


@pytest.mark.parametrize(
    "override",
    [
        "launch.kuberay.mount=relative",
        "launch.kuberay.namespace=Not_a_label",
        "launch.kuberay.learner.memory=lots",
        "launch.kuberay.solvers={pods: 3, max_pods: 2}",
    ],
)
def test_bad_keys_are_refused(config, override):
    assert "launch.kuberay" in refusal(load_config, config, (override,))


def test_a_job_is_submitted_asked_after_and_stopped(config, kubectl):
    ((folder, job),) = launching.launch(load_config(config), "kuberay", 1)
    assert kubectl.calls == [["apply", "-f", str(folder.path / "rayjob.yaml")]]
    written = yaml.safe_load((folder.path / "rayjob.yaml").read_text())
    assert written["metadata"]["name"] == job.id
    assert groups_of(written)["head"]["template"]["spec"]["securityContext"]["runAsUser"] == 1234
    assert folder.config().cluster.address == "auto" and folder.config().solver.workers == 4
    for said, state in [
        ("", State.GONE),
        (f"{job.id} ", State.WAITING),
        (f"{job.id} Initializing", State.WAITING),
        (f"{job.id} Running", State.RUNNING),
        (f"{job.id} Retrying", State.WAITING),
        (f"{job.id} Complete", State.GONE),
        (f"{job.id} Failed", State.GONE),
    ]:
        kubectl.answer(out=said)
        assert launching.state_of(folder, job) is state
    get = ["get", "rayjob", job.id, "--ignore-not-found", "-o"]
    assert kubectl.calls == [[*get, "jsonpath={.metadata.name} {.status.jobDeploymentStatus}"]]
    folder.update_run(state="running")  # as the driver does
    kubectl.answer(out=f"{job.id} Running")
    assert CliRunner().invoke(app, ["stop"]).output == f"kuberay job {job.id} writes a checkpoint and ends\n"
    assert kubectl.calls[-1] == ["delete", "rayjob", job.id, "--ignore-not-found", "--wait=false"]
    kubectl.answer(out="penstock: head cannot write to it")
    assert CliRunner().invoke(app, ["logs"]).output == "penstock: head cannot write to it\n"
    (folder.logs / "job.log").write_text("step 3\n")
    assert CliRunner().invoke(app, ["logs"]).output.endswith(" job | step 3\n")


def test_what_kubectl_refuses_is_one_line(config, kubectl):
    kubectl.answer(err='Warning: a\nError from server (NotFound): namespaces "default" not found', code=1)
    message = refusal(launching.launch, load_config(config), "kuberay", 1)
    assert message == 'kubectl apply: Error from server (NotFound): namespaces "default" not found'
    (folder,) = (config.parent / "runs").glob("Small*")
    assert json.loads((folder / "run.json").read_text())["state"] == "failed"


def test_what_is_missing_here_is_one_line(config, kubectl, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert "never as root" in refusal(launching.launch, load_config(config), "kuberay", 1)
    monkeypatch.setenv("PATH", str(config.parent))
    assert "there is no kubectl on the path" in refusal(launching.launch, load_config(config), "kuberay", 1)
    with pytest.raises(PenstockError, match="only `launch slurm` takes several"):
        launching.launch(load_config(config), "kuberay", 2)
    assert not (config.parent / "runs").exists()


@pytest.fixture
def driver(config, tmp_path):
    """Runs the driver's command as Ray does, with a python that prints its arguments."""

    def run(folder, version=__version__):
        program = tmp_path / "path"
        program.mkdir(exist_ok=True)
        (program / "python").write_text(f'#!/bin/bash\n[ "$1" = -c ] && echo {version} || echo "$@"\n')
        (program / "python").chmod(0o755)
        text = kuberay.KubeRay(load_config(config, ("launch.prologue=export A='it''s set'",))).text([folder])
        environment = {"PATH": f"{program}:{os.environ['PATH']}"}
        command = yaml.safe_load(text)["spec"]["entrypoint"]
        return subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)

    return run


def test_a_driver_checks_folder_and_version_first(driver, tmp_path):
    folder = tmp_path / "runs" / "it's a run"
    done = driver(folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and f"cannot write to {folder}" in done.stderr
    (folder / "logs").mkdir(parents=True)
    assert driver(folder, version="0.0.1").returncode == 2
    assert driver(folder).returncode == 0
    refused, begun = (folder / "logs" / "job.log").read_text().splitlines()
    assert f"has penstock 0.0.1, and the run was launched with {__version__}: use one version" in refused
    assert begun == f"-m penstock resume {folder} cluster.address=auto"


def test_pods_stay_while_the_run_writes_its_checkpoint(config):
    folder = config.parent / "runs" / "it's a run"
    folder.mkdir(parents=True)
    job = yaml.safe_load(kuberay.KubeRay(load_config(config)).text([folder]))
    groups = groups_of(job)
    containers = {name: group["template"]["spec"]["containers"][0] for name, group in groups.items()}
    assert "lifecycle" not in containers["solvers"]
    command = containers["head"]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == containers["learner"]["lifecycle"]["preStop"]["exec"]["command"]
    (folder / "run.json").write_text(json.dumps({"state": "running"}, indent=1))
    (config.parent / "sleep").write_text("#!/bin/bash\necho >>slept\n")
    (config.parent / "sleep").chmod(0o755)
    waiting = subprocess.Popen(command, env={"PATH": f"{config.parent}:{os.environ['PATH']}"})
    wait_until((config.parent / "slept").exists)
    assert waiting.poll() is None
    (folder / "run.json").write_text(json.dumps({"state": "stopped"}, indent=1))
    wait_until(lambda: waiting.poll() == 0)
