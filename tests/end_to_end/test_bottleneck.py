"""Which side limits a run, on runs whose bottleneck is made."""

import signal

PACED = """
import time
from pathlib import Path

from penstock.messages import BLOCKED, Chunk
from penstock.solvers.problems.{module} import {name}
from penstock.transport.sender import Sender

SEND = Sender.send


def rest(name, seconds):
    if (Path({folder!r}) / name).exists():
        time.sleep(seconds)


class Paced({name}):
    def simulate(self, parameters, solve):
        rest("slow solver", 0.1)
        yield from super().simulate(parameters, solve)


def send(sender, item):
    if isinstance(item, Chunk):
        with sender._waiting(BLOCKED):  # as where the chunks before are on their way for long
            rest("slow stream", 1.0)
    return SEND(sender, item)


Sender.send = send
"""
PACED_MODEL = """
import time
from pathlib import Path

from penstock.learner.models.{module} import {name}


class Paced({name}):
    def forward(self, *arguments, **named):
        if (Path({folder!r}) / "slow model").exists():
            time.sleep(0.2)
        return super().forward(*arguments, **named)
"""
MODELS = {"fno": ("grids.fourier.fno", "FNO"), "branch_trunk": ("points.pooled.branch_trunk", "BranchTrunk")}


def course(cli, stages, *overrides):
    """The sentence in each of several stages of a run, and the summary: what is slow in it, and the side expected."""
    module, name = cli.kind.source
    folder = str(cli.folder)
    (cli.folder / "paced.py").write_text(PACED.format(module=module, name=name, folder=folder))
    module, name = MODELS[cli.kind.model.split(",")[0].removeprefix("{name: ")]
    (cli.folder / "paced_model.py").write_text(PACED_MODEL.format(module=module, name=name, folder=folder))
    places = [cli.folder / f"slow {slow}" for slow, _ in stages]
    places[0].touch()
    process = cli.start(
        *("train", "tiny.yaml", "problem.name=./paced.py:Paced", "model.name=./paced_model.py:Paced"),
        *("training.stop_after={minutes: 10}", "checkpoint.every_s=600", "validation.every_s=600"),
        *("validation.simulations=4", *overrides),
    )
    sentences = []
    for place, (_, side) in zip(places, stages, strict=True):
        place.touch()
        record = cli.wait_until(
            process,
            lambda record, side=side: (
                (found := record["bottleneck"]) is not None and found["side"] == side and found["certainty"] >= 0.95
            ),
            timeout_s=100.0,
        )
        sentences.append(record["bottleneck"]["sentence"])
        place.unlink()
    process.send_signal(signal.SIGINT)
    result = cli.finish(process)
    assert result.returncode == 130, result.stderr
    return sentences, cli.read("summary.json")["bottleneck"]


def test_solvers_and_a_rate_limiter_that_limit(cli):
    sentences, overall = course(cli, [("solver", "solvers"), ("model", "rate limiter")], "buffer.watermark=16")
    assert (
        sentences[0].startswith("solvers limit: ") and "workers more would feed this learner at reuse" in sentences[0]
    )
    assert sentences[1].startswith("the rate limiter holds the solvers to reuse ")
    for sentence in sentences:
        assert "in place of 0.5 (reuse " in sentence
    assert overall["side"] in ("solvers", "rate limiter") and " of the time " in overall["sentence"]


def test_a_learner_and_a_stream_that_limit(cli):
    fifo = "buffer={kind: fifo, capacity: 128, watermark: 16}"
    sentences, overall = course(cli, [("model", "learner"), ("stream", "transport")], fifo)
    assert sentences[0].startswith("the learner limits: ") and " of 1 workers would do" in sentences[0]
    assert sentences[1].startswith("transport limits: ") and "the network" in sentences[1]
    assert overall["side"] in ("learner", "transport")
