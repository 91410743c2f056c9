"""The container file, by rules that linters of such files have, and Ray's settings in the templates."""

import re
from pathlib import Path

import pytest
import yaml

from penstock.orchestrator.cluster.ray_session import BOUNDS
from tests.orchestrator.test_packaging import PARTS, PROJECT

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "Containerfile").read_text()
INSTRUCTIONS = ["ARG", "FROM", "RUN", "COPY", "WORKDIR", "USER", "ENV", "CMD"]


def instructions(text):
    """Pairs of an instruction and what follows it, with continued lines as one."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in whole]


def complaints(text):
    """What is poor in a container file; the numbers are those of hadolint's rules, as far as they are ours."""
    found, steps = [], instructions(text)
    names = [name for name, _ in steps]
    rules = {
        "unknown instruction": set(names) <= set(INSTRUCTIONS),
        "FROM comes after ARG alone": names[: names.index("FROM")] in ([], ["ARG"]),
        "DL3002 last user is root": [rest for name, rest in steps if name == "USER"][-1:] not in ([], ["0"], ["root"]),
        "DL3025 CMD is no JSON": all(rest.startswith('["') for name, rest in steps if name == "CMD"),
        "DL3000 WORKDIR is relative": all(rest.startswith("/") for name, rest in steps if name == "WORKDIR"),
        "DL3020 COPY from the context root": not any(rest.split()[0] == "." for name, rest in steps if name == "COPY"),
    }
    found += [rule for rule, holds in rules.items() if not holds]
    for rest in (rest for name, rest in steps if name == "RUN"):
        if "apt-get install" in rest:
            wanted = ("apt-get update", " -y ", "--no-install-recommends", "rm -rf /var/lib/apt/lists/*")
            found += [f"apt-get without {word.strip()}" for word in wanted if word not in rest]
        if "pip install" in rest and "--no-cache-dir" not in rest:
            found.append("DL3042 pip with a cache")
        if "sudo" in rest or rest.startswith("cd "):
            found.append("DL3004 sudo, or DL3003 cd")
    return found


def test_the_container_file_is_clean():
    assert not complaints(TEXT)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("USER 1000", "USER root"),
        ("USER 1000\n", ""),
        (" --no-install-recommends", ""),
        ("    && rm -rf /var/lib/apt/lists/*\n", "    && true\n"),
        (" --no-cache-dir", ""),
        ('CMD ["penstock", "--help"]', "CMD penstock --help"),
        ("WORKDIR /src", "WORKDIR src"),
        ("COPY deploy deploy", "COPY . ."),
        ("COPY deploy", "COPPY deploy"),
    ],
)
def test_the_linter_finds_what_is_poor(old, new):
    assert old in TEXT and complaints(TEXT.replace(old, new))


def test_the_image_gets_what_the_package_is_built_from():
    copied = {word for name, rest in instructions(TEXT) if name == "COPY" for word in rest.split()[:-1]}
    assert copied == {*PARTS, "pyproject.toml", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in copied)
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert let_in == copied
    (extras,) = re.findall(r'"\.\[([a-z,]+)\]"', TEXT)
    assert set(extras.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()


def settings_of_slurm():
    """Ray's settings that a user's environment may change, with their defaults."""
    text = (ROOT / "deploy" / "slurm" / "job.sh").read_text()
    return dict(re.findall(r'^export (RAY_\w+)="\${\1:-(\w+)}"$', text, re.M))


def settings_of_kuberay():
    """The environment of the head, and of the other pods."""
    cluster = yaml.safe_load((ROOT / "deploy" / "kuberay" / "rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    return [{variable["name"]: variable["value"] for variable in container["env"]} for container in containers]


def test_what_ray_keeps_is_bounded_wherever_it_is_started():
    for settings in (settings_of_slurm(), *settings_of_kuberay()):
        assert BOUNDS.items() <= settings.items()


def test_a_node_is_given_up_after_tcp_has_tried_again():
    """Ray's checks come every 3 s and fail after 10 s; TCP tries again 51 s after a cut, and 54 s were measured."""
    name = "RAY_health_check_failure_threshold"
    threshold = settings_of_slurm()[name]
    assert settings_of_kuberay()[0][name] == threshold
    assert 54 + 30 < (int(threshold) - 1) * 13 + 10 < 120
