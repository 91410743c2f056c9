"""Every problem trained for half a minute by the command line, exported and used."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import torch

from benchmarks.learner.page import footer
from benchmarks.problems import names_of
from benchmarks.report import FOLDER, paragraph, write
from benchmarks.surrogates.by_command_line import trained
from penstock.errors import PenstockError
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import resolve
from penstock.report import markdown

MODELS = ("fno", "branch_trunk", "mlp")  # of a field on a grid, of one geometry of any kind, of several
RECORD = FOLDER / "training.json"
AT_ONCE = 2  # on two cores: a run with one worker waits for either side half of the time
INTRODUCTION = """
Each problem with its default options, through `penstock train`, `penstock export` and `penstock predict --num 2`, with
the first model that takes its fields and penstock's defaults for all else but a small buffer and validation set.
Training took {seconds:g} seconds from the watermark on. Two runs shared the machine, so that the errors say that it
learns and not how well it can.
"""


def configuration(name: str, seconds: float) -> dict[str, Any]:
    """The configuration of a short run, with the first of MODELS that takes the problem's fields.

    Args:
        name: of the problem.
        seconds: time of training.
    """
    values = {
        "name": name,
        "problem": {"name": name},
        "buffer": {"capacity": 256, "watermark": 16},
        "training": {"stop_after": {"minutes": seconds / 60}, "device": "cpu"},
        "validation": {"simulations": 10},
    }
    for model in MODELS:
        with suppress(PenstockError):
            resolve(Config.model_validate(values | {"model": {"name": model}})).surrogate()
            return values | {"model": model}
    raise PenstockError(f"no model takes the fields of {name!r}")


def measure(name: str, seconds: float) -> list[str]:
    """The row of a problem.

    Args:
        name: of the problem.
        seconds: time of training.
    """
    values = configuration(name, seconds)
    try:
        summary = trained(values, ["export"], ["predict", "--num", "2"])
    except PenstockError as error:
        return [name, values["model"], *["-"] * 4, str(error)]
    error = summary["validation"]["relative_l2"]["mean"]
    return [
        *(name, values["model"], str(summary["delivered"]), str(summary["unique"]), str(summary["step"])),
        *(f"{error:.3g}", "exported, predicted"),
    ]


def run(names: list[str], seconds: float) -> None:
    """Train problems, and print and write the table of all trainings there are.

    A training that the record has is not done again, so that a table can be made in parts: remove benchmarks/tables/
    training.json to begin afresh.

    Args:
        names: of the problems; all of them where there are none.
        seconds: time of each training.

    Raises:
        PenstockError: there is no such problem.
    """
    record: dict[str, list[str]] = json.loads(RECORD.read_text()) if RECORD.exists() else {}

    def train(name: str) -> None:
        row = measure(name, seconds)
        print(*row, sep=" | ", file=sys.stderr, flush=True)
        record[name] = row
        write(RECORD.name, json.dumps(record, indent=1, sort_keys=True) + "\n")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(train, (name for name in names_of(names) if name not in record)))
    rows = [record[name] for name in sorted(record)]
    header = ["problem", "model", "simulations", "samples", "steps", "relative L2 error", "then"]
    text, table = paragraph(INTRODUCTION.format(seconds=seconds)), markdown(rows, header)
    print(table)
    title = "# Every problem, trained for a short time"
    write("training.md", "\n\n".join([title, text, table, footer(torch.device("cpu"), "training")]) + "\n")
