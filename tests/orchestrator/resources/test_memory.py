"""What memory there is, read from trees as the kernel writes them, and what a run may ask of it."""

import re

import numpy as np
import psutil
import pytest

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import Plan, resolve
from penstock.orchestrator.resources.bounds import require_memory, require_memory_for_draws, sample_bytes
from penstock.orchestrator.resources.memory import Memory, least_memory, size

GB = 10**9
CACHE_2 = "anon 1000\nfile 700\ninactive_file 300\nactive_file 200\nslab 5"
CACHE_1 = "inactive_file 1\nactive_file 1\ntotal_inactive_file 300\ntotal_active_file 200"


def tree(root, cgroup, files):
    for path, text in {"proc/self/cgroup": cgroup, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def version_2(folder, *, limit="max", high="max", used=1000):
    base = f"sys/fs/cgroup/{folder}".rstrip("/")
    files = {"memory.max": limit, "memory.high": high, "memory.current": used, "memory.stat": CACHE_2}
    return {f"{base}/{name}": f"{value}\n" for name, value in files.items()}


def version_1(folder, limit, used=1000):
    base = f"sys/fs/cgroup/memory/{folder}".rstrip("/")
    files = {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used, "memory.stat": CACHE_1}
    return {f"{base}/{name}": f"{value}\n" for name, value in files.items()}


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/a/b\n", version_2("a/b", limit=5000), ("a/b", 5000, 4500)),
        ("0::/a/b\n", version_2("a/b", limit=9000, high=6000, used=4000), ("a/b", 6000, 2500)),
        ("0::/a/b\n", {**version_2("a/b", limit=9000), **version_2("a", limit=3000, used=2500)}, ("a", 3000, 1000)),
        ("0::/\n", version_2("", limit=5000, used=9000), ("", 5000, 0)),  # a container's own group, from inside
        ("0::/../../x\n", version_2("", limit=5000), ("", 5000, 4500)),
        ("4:memory:/a\n0::/\n", version_1("a", 5000), ("memory/a", 5000, 4500)),
        ("4:cpu,memory:/host/path\n", version_1("", 5000), ("memory", 5000, 4500)),  # ... where the path is the host's
        ("4:memory:/\n0::/u\n", version_2("unified/u", limit=5000), ("unified/u", 5000, 4500)),
    ],
)
def test_the_tightest_control_group_counts_and_its_page_cache_is_free(tmp_path, cgroup, files, expected):
    """By hand: limit - (used - cache), where the cache is 500."""
    folder, total, available = expected
    memory = least_memory(tree(tmp_path, cgroup, files))
    assert (memory.total, memory.available) == (total, available)
    assert memory.name == f"the control group {(tmp_path / 'sys/fs/cgroup' / folder)}"


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/a\n", {}),
        ("0::/a\n", version_2("a")),
        ("4:memory:/a\n", version_1("a", 2**63 - 4096)),  # version 1 for "none"
        ("0::/a\n", {"sys/fs/cgroup/a/memory.max": "5000\n"}),
        ("nonsense", {}),
        ("4:cpu:/a\n", version_1("a", 5000)),
    ],
)
def test_without_a_limit_the_machine_counts(tmp_path, cgroup, files):
    memory = least_memory(tree(tmp_path, cgroup, files))
    assert memory.name == "this machine" and memory.total == psutil.virtual_memory().total


def test_a_twentieth_of_the_memory_is_kept_free():
    assert Memory("it", 100 * GB, 50 * GB).room == 45 * GB and Memory("it", 100 * GB, 4 * GB).room == 0


def plan(**sections) -> Plan:
    values = {
        "problem": {"name": "darcy", "resolution": 50},  # a sample of 2 fields has 20,000 bytes, and 100 for its slot
        "model": {"name": "fno", "width": 8, "modes": 4, "layers": 1},
        "validation": {"simulations": 10},
        "training": {"stop_after": {"steps": 10}},
    }
    return resolve(Config.model_validate(values | sections))


def refusal(chosen, memory, num_workers=2, **options) -> str:
    with pytest.raises(PenstockError) as caught:
        require_memory(chosen, memory, num_workers=num_workers, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_capacity_that_is_named_fits_and_one_more_does_not():
    memory = Memory("this machine", 40 * GB, 22 * GB)
    assert sample_bytes(plan()) == 20_100
    text = refusal(plan(buffer={"capacity": 10**6}), memory)
    assert text.startswith("buffer.capacity: 1000000 samples of 20.1 kB take 20.1 GB, and this machine has 19 GB free")
    most = int(re.search(r"at most (\d+) fit", text)[1])
    # 22 GB but a twentieth of 40, 0.8 for learner and Ray, 0.22 for workers, six chunks, three times the validation set
    expected = (22 - 2 - 0.8 - 0.22 - 6 * 0.00102 - 3 * 10 * 20_000 / GB) * GB / 20_100
    assert most == pytest.approx(expected, rel=1e-3)
    require_memory(plan(buffer={"capacity": most}), memory, num_workers=2)
    refusal(plan(buffer={"capacity": most + 1}), memory)
    require_memory(plan(buffer={"capacity": most + 1}), memory, num_workers=2, holds_buffer=False)


@pytest.mark.parametrize(
    ("sections", "num_workers", "expected"),
    [
        (
            {"buffer": {"capacity": 10**30}},
            1,
            "buffer.capacity: 1000000000000000000000000000000 samples of 20.1 kB take",
        ),
        (
            {"validation": {"simulations": 10**6}},
            1,
            r"validation.simulations: 1000000 of them take 60 GB .* at most \d+ fit",
        ),
        (
            {"problem": {"name": "darcy", "resolution": 10**5}},
            1,
            "buffer.capacity: 1000 samples of 80 GB take 80 TB, .* "
            r"at most 0 fit, fewer than buffer.watermark = 100: lower both, or make the samples smaller",
        ),
        ({"model": {"name": "fno", "width": 2000}}, 1, "model: the weights of fno take 296 GB with gradients"),
        ({"model": {"name": "mlp", "hidden": [10**5, 10**5]}}, 1, "model: the weights of mlp take"),
        ({}, 10**6, "solver.workers: 1000000 of them take 110 TB and more, and this machine has 20 GB free"),
    ],
)
def test_what_is_beyond_any_memory_is_named_by_its_key(sections, num_workers, expected):
    assert re.match(expected, refusal(plan(**sections), Memory("this machine", 40 * GB, 22 * GB), num_workers))


def test_little_data_is_not_refused_for_what_the_programs_are_thought_to_take():
    require_memory(plan(), Memory("this machine", GB, GB // 2), num_workers=2)


@pytest.mark.parametrize("seed", range(20))
def test_what_passes_fits_with_the_programs(seed):
    """Against a sum written down by itself, over sizes from nothing to far too much."""
    random = np.random.default_rng(seed)
    capacity, simulations = (int(10 ** random.uniform(2, 7)) for _ in range(2))
    memory = Memory("this machine", 64 * GB, int(random.uniform(4, 64) * GB))
    chosen = plan(buffer={"capacity": capacity}, validation={"simulations": simulations})
    weights = 8 * 4 * (3 * 8 + 8 + 2 * 4**2 * 8 * 16 + 8 * 8 + 8 + 8 * 16 + 16 + 16 + 1)
    data = 20_100 * capacity + 3 * 20_000 * simulations + weights
    room = memory.available - 3.2 * GB
    is_granted = data <= max(room - 0.8 * GB - 0.22 * GB - 6 * 1_020_000, room / 4)
    if is_granted:
        require_memory(chosen, memory, num_workers=2)
    else:
        assert "at most" in refusal(chosen, memory)


def test_draws_to_predict_fit_too():
    """20,000 bytes each, four times over."""
    memory = Memory("this machine", 40 * GB, 22 * GB)
    require_memory_for_draws(plan(), 250_000, memory)
    with pytest.raises(PenstockError, match=r"--num: 250001 draws take 20 GB, .* has 20 GB free: at most 250000 fit"):
        require_memory_for_draws(plan(), 250_001, memory)


def test_sizes_for_people():
    assert [size(n) for n in (5, 2_500, 32_868, 1.64e9, 2e12)] == ["0.005 kB", "2.5 kB", "32.9 kB", "1.64 GB", "2 TB"]
