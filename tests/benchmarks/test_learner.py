"""Every section of the learner's bench in small, and the arithmetic of its ratios.

The measured figures are not tested.
"""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.learner import cases, contests
from benchmarks.learner.allocator import KEYS, PROGRAM, allocator
from benchmarks.learner.ingest import ingest
from benchmarks.learner.padding import padding
from benchmarks.learner.page import page, run
from penstock.errors import PenstockError
from penstock.learner.allocator import KEEP_FREED_MEMORY
from penstock.learner.ladder.ladder import ITEMS, L1, Batches, Items, Producer, ladder
from penstock.learner.ladder.samples import chunks
from penstock.learner.ladder.section import Section, Target, summary
from penstock.learner.ladder.timing import Rounds, Spread, measure
from penstock.messages import CHUNK_BYTES

CPU = torch.device("cpu")
FNO = cases.fno(16, width=4, modes=4, batch_size=4, num_slots=32)
MLP = cases.mlp(3000, num_slots=40)
SMALL = {
    "fno-2d": cases.on_grid("fno", (16, 16), 2, width=4, modes=4, layers=2),
    "unet-2d": cases.on_grid("unet", (32, 32), 2, width=4, levels=3),
    "transolver": cases.on_mesh("transolver", 40, 2, width=8, heads=2, layers=1, slices=4, ratio=1),
}


def test_speed_is_the_median_of_paired_ratios():
    """A round that is slow for both arms does not enter the ratio of pairs.

    It would enter the ratio of medians or means.
    """
    rounds = Rounds({"ours": [1.0, 1.0, 9.0, 1.1, 1.0], "theirs": [2.0, 2.0, 18.0, 2.2, 2.0]})
    assert rounds.speed("ours", "theirs") == pytest.approx((2.0, 2.0, 2.0))
    assert rounds.speed("theirs", "ours").median == pytest.approx(0.5)
    assert rounds.rate("ours", 10).median == pytest.approx(10.0)
    assert rounds.time("ours") == Spread(1.0, 1.0, 1.1)


def test_arms_take_turns_and_warm_up_before():
    calls = []

    def arm(name):
        def run(count):
            calls.append(name)
            time.sleep(1e-4 * count)

        return run

    rounds = measure({"a": arm("a"), "b": arm("b")}, 0.05, CPU)
    num_rounds = len(rounds.seconds["a"])
    assert num_rounds == len(rounds.seconds["b"]) >= 5
    timed = calls[-2 * num_rounds :]
    assert timed[:4] == ["a", "b", "b", "a"]
    assert len(calls) > len(timed)
    assert all(seconds >= 1e-4 for times in rounds.seconds.values() for seconds in times)


@pytest.mark.parametrize("case", [FNO, MLP])
def test_ladder_has_every_rung(case):
    section = ladder(case, CPU, 0.05)
    for arm in (L1, "L2 ", "L2p", ITEMS, "DataLoader, batched", "feed"):
        assert f"| {arm}" in section.text
    assert re.search(r"L2p: the producer put \d+ unique samples/s, \S+ GB/s, a reuse of", section.text)
    expected = ["L2 / L1", "L2p / L1"] + ["L1, fraction of the roofline"] * case.counts_bytes
    assert [target.what for target in section.targets] == expected
    assert all(target.measured.median > 0 for target in section.targets)


@pytest.mark.gpu
@pytest.mark.parametrize("case", [FNO, MLP])
def test_on_a_gpu_the_ladder_has_a_buffer_in_either_memory(case):
    section = ladder(case, torch.device("cuda"), 0.05)
    for place in ("device memory", "pinned memory"):
        assert f"| L2, {place}" in section.text and f"- L2p, {place}: the producer put" in section.text
    assert all(target.measured.median > 0 for target in section.targets)


def test_a_case_is_what_its_title_says():
    big = cases.mlp(10**6, num_slots=1)
    assert big.layout.shapes == {"scalars": (6,), "targets": (1, 10**6)}
    shapes = [tuple(parameter.shape) for parameter in MLP.step(CPU).surrogate.parameters()]
    assert shapes == [(256, 6), (256,), (256, 256), (256,), (3000, 256), (3000,)]
    buffer = FNO.full_reservoir()
    assert len(buffer) == buffer.capacity == 32


def test_chunks_are_of_the_size_that_travels_and_their_simulations_are_new():
    stream = chunks(cases.fno().layout)
    first, second = next(stream), next(stream)
    assert CHUNK_BYTES - cases.fno().layout.sample_bytes < first.num_bytes <= CHUNK_BYTES
    assert not set(first.simulations) & set(second.simulations)
    assert set(first.finished) == set(first.simulations)
    assert not first.arrays["fields"].flags.writeable
    assert not np.array_equal(first.arrays["fields"], second.arrays["fields"])


def test_a_producer_refills_what_was_drawn_and_rests_outside_with():
    buffer = FNO.full_reservoir()
    producer = Producer(buffer, FNO.layout)
    try:
        for _ in range(8):  # seen samples among few are drawn again, so fewer than 8 x 4 may be replaced
            assert buffer.draw(4, 1.0) is not None
        assert producer.num_unique == 0
        with producer:
            deadline = time.monotonic() + 60
            while (buffer.num_unseen < 32 or not producer.num_unique) and time.monotonic() < deadline:
                time.sleep(0.01)
        assert buffer.num_unseen == 32
        assert 0 < producer.num_unique <= 32
        assert producer.seconds > 0
    finally:
        buffer.close()
        producer.close()


def test_both_datasets_give_the_rows_that_were_asked_for():
    arrays = {"scalars": torch.arange(12.0).reshape(6, 2), "targets": torch.arange(18.0).reshape(6, 1, 3)}
    slots = [4, 0, 4]
    items = [Items(arrays)[slot] for slot in slots]
    batch = Batches(arrays).__getitems__(slots)
    for name, array in arrays.items():
        torch.testing.assert_close(torch.stack([item[name] for item in items]), array[slots])
        torch.testing.assert_close(batch[name], array[slots])


def test_ingest_is_measured_for_every_size_of_row():
    section = ingest(CPU, 0.0, buffer_bytes=1 << 22)
    assert len(section.targets) == 3
    assert all(target.least == 0.8 and target.measured.median > 0 for target in section.targets)


def test_padding_is_what_slots_hold_beside_their_data():
    section = padding(cases.points(40, batch_size=2, num_slots=12), CPU, 0.05)
    least, most, slot, in_slots, of_data, share = map(
        float,
        re.search(
            r"Samples of (\S+) to (\S+) points.* room for (\S+) points: (\S+) MB for (\S+) MB of data, (\S+) times",
            " ".join(section.text.split()),
        ).groups(),
    )
    assert 32 <= least <= most <= slot == 40
    assert in_slots / of_data == pytest.approx(share, rel=0.02) and 1 <= share <= 40 / least
    (target,) = section.targets
    assert target.measured.median > 0


def test_the_step_is_measured_with_and_without_the_allocator_s_settings(monkeypatch):
    """A step takes twice as long in the environment without the settings."""

    def process(command, *, input, env, **options):
        assert command == [sys.executable, "-c", PROGRAM] and pickle.loads(input)[:3] == (MLP, CPU, 0.0)
        settings = {name: env.get(name) for name in KEEP_FREED_MEMORY}
        assert settings in (KEEP_FREED_MEMORY, dict.fromkeys(KEEP_FREED_MEMORY))
        figures = dict.fromkeys(KEYS, 7.0 if settings == KEEP_FREED_MEMORY else 14.0)
        return SimpleNamespace(stdout=json.dumps(figures))

    monkeypatch.setattr(subprocess, "run", process)
    section = allocator({"MLP": MLP}, CPU, 0.0, num_pairs=1)
    rows = [[cell.strip() for cell in row.split("|")[2:4]] for row in section.text.splitlines()[-2:]]
    assert rows == [["kept", "7.0"], ["given back", "14.0"]]
    (target,) = section.targets
    assert target.what == "MLP: memory kept against given back" and target.measured.median == 2


def test_what_the_allocator_s_processes_run_measures_a_step(monkeypatch, capsys):
    arguments = pickle.dumps((MLP, CPU, 0.0, torch.get_num_threads()))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(arguments)))
    exec(PROGRAM, {})
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() == {*KEYS} and figures["ms"] > 0 and figures["peak_mb"] > 50


@pytest.mark.parametrize("name", ["fno-2d", "unet-2d", "transolver"])
def test_public_models_are_compared_where_they_are_installed(name, monkeypatch):
    monkeypatch.setattr(contests, "MODES", {"eager": False})
    contest = replace(contests.CONTESTS[name], case=SMALL[name])
    section = contests.against(contest, CPU, 0.02)
    missing = [twin for twin in contest.twins if f"{twin.name} is not compared" in section.text]
    assert all(f"`pip install {twin.package}`" in section.text for twin in missing)
    assert bool(section.targets) == (len(missing) < len(contest.twins))
    assert "| penstock, eager" in section.text


def test_a_step_is_held_against_the_fastest_public_one():
    """A slow one does not help, and one in the other mode does not count."""
    times = {"penstock, eager": 2.0, "slow, eager": 5.0, "fast, eager": 3.0, "fast, compiled": 1.0}
    seconds = {arm: [time] * 5 for arm, time in times.items()}
    target = contests._target("eager", ["penstock", "slow", "fast"], Rounds(seconds, seconds))
    assert target.what == "against fast, eager" and target.measured.median == pytest.approx(1.5)
    assert contests._target("eager", ["penstock"], Rounds(seconds, seconds)) is None


def test_targets_are_judged_by_their_medians():
    targets = (
        Target(what="feed", measured=Spread(0.97, 0.9, 1.0), least=0.95),
        Target(what="copy", measured=Spread(0.7, 0.6, 0.9), least=0.8),
        Target(what="import", measured=Spread(1.0, 0.9, 5.0), most=3.0),
        Target(what="told", measured=Spread(1.0, 1.0, 1.0)),
    )
    sections = [Section("One", "text", targets)]
    rows = [[cell.strip() for cell in line.split("|")[2:6]] for line in summary(sections).splitlines()[2:]]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        ("feed", "at least 0.95", "yes"),
        ("copy", "at least 0.8", "no"),
        ("import", "at most 3", "yes"),
        ("told", "-", "-"),
    ]
    text = page(sections, CPU, 6.0, "")
    for part in ("# What limits training on a CPU", "## One\n\ntext", "- Machine: ", f"torch {torch.__version__}"):
        assert part in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seconds": 0.0}, "--seconds 0: must be above 0"),
        ({"seconds": float("nan")}, "--seconds nan: must be above 0"),
        ({"case": "cnn"}, "--case cnn: there are fno, mlp, points, padding, public, ingest, allocator, import"),
        ({"device_name": "tpu"}, "--device tpu: there are cpu and cuda"),
    ],
)
def test_bad_options_are_one_line(arguments, message):
    with pytest.raises(PenstockError) as error:
        run(**arguments)
    assert str(error.value) == message


def test_the_command_reaches_it(tmp_path):
    """In a process, which starts again with the allocator's settings before it imports torch."""
    command = [sys.executable, "-m", "benchmarks", "learner", "--seconds", "-1"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, env=environment)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("--seconds -1: must be above 0")
    assert not list(tmp_path.iterdir())
