"""Which optimizer and learning rate train each model best, in an equal number of steps."""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks.learner.page import footer
from benchmarks.report import FOLDER, paragraph, write
from benchmarks.surrogates.zoo import POINTS, STEADY, TRANSIENT
from penstock.errors import PenstockError
from penstock.learner.models import MODELS
from penstock.learner.stream.stream import InProcessStream
from penstock.messages import Lease
from penstock.orchestrator.actors.solver_actor import make_worker
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import resolve
from penstock.registry import nearest
from penstock.report import markdown

PROBLEMS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "darcy": ({"resolution": 32}, STEADY),
    "kdv_burgers": ({"case": "E2", "resolution": 64}, TRANSIENT),
    "void_cell": ({"resolution": 32}, POINTS),
    "heat_l_shape": ({"resolution": 12, "num_steps": 4}, POINTS),
}
"""Small problems of each kind of geometry: their options, and the models of their kind."""
RECIPES = [("adamw", 1e-3), ("adamw", 4e-3), ("muon", 6e-3), ("muon", 2e-2)]
ROWS, VALIDATION_ROWS = 400, 50
RECORD = FOLDER / "recipes.json"
INTRODUCTION = """
Mean relative L2 error on {validation} validation simulations after a number of steps on the samples of {rows}, with
default options, batch sizes and schedule, by optimizer and highest learning rate, and in brackets the milliseconds of
processor time of a step on one core. The lowest of a row is bold; a star marks what a model is trained with where a
configuration says nothing, if that is among these. One seed each.
"""


def run(problems: Sequence[str], models: Sequence[str] | None, steps: int) -> None:
    """Train models by each of RECIPES, and write the table of all trainings there are.

    A training that the record has is not done again: remove benchmarks/tables/recipes.json to begin afresh.

    Args:
        problems: names of PROBLEMS; all of them where there are none.
        models: names of models, which are trained again; all of each problem's kind where there are none.
        steps: length of each training.

    Raises:
        PenstockError: there is no such problem or model.
    """
    for name, known in [(name, PROBLEMS) for name in problems] + [(name, MODELS) for name in models or ()]:
        if name not in known:
            raise PenstockError(f"{name!r} is not in the table; {nearest(name, known)}")
    record: dict[str, list[float]] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    wanted = {
        _key(problem, model, optimizer, rate, steps): (problem, model, optimizer, rate, steps)
        for problem in problems or PROBLEMS
        for model in models or PROBLEMS[problem][1]
        for optimizer, rate in RECIPES
    }
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        jobs = {pool.submit(_trained, *each): key for key, each in wanted.items() if models or key not in record}
        for job in as_completed(jobs):
            if (result := job.result()) is None:
                continue
            record[jobs[job]] = result
            print(f"{jobs[job]}: {result[0]:.4f}, {result[1]:.1f} ms", file=sys.stderr, flush=True)
            write(RECORD.name, json.dumps(record, indent=1) + "\n")
    text = INTRODUCTION.format(validation=VALIDATION_ROWS, rows=ROWS)
    parts = [paragraph(text), *_sections(record), footer(torch.device("cpu"), "recipes")]
    write("recipes.md", "\n\n".join(["# Recipes of the models", *parts]) + "\n")


def _key(problem: str, model: str, optimizer: str, rate: float, steps: int) -> str:
    return f"{problem} {model} {optimizer} {rate:g} {steps}"


def _configuration(problem: str, model: str, **training: Any) -> Config:
    return Config.model_validate(
        {
            "problem": {"name": problem, **PROBLEMS[problem][0]},
            "model": model,
            "solver": {"workers": 1, "strategy": "direct", "sort": False},
            "buffer": {"capacity": 10 * ROWS, "watermark": ROWS, "batches_per_simulation": None},
            "training": {"stop_after": {"steps": 1}, "device": "cpu", **training},
            "validation": {"simulations": VALIDATION_ROWS},
        }
    )


def _trained(problem: str, model: str, optimizer: str, rate: float, steps: int) -> list[float] | None:
    """Error after a training, and milliseconds of processor time per step; None if the model does not suit."""
    torch.set_num_threads(1)
    plan = resolve(_configuration(problem, model, optimizer=optimizer, learning_rate=rate, stop_after={"steps": steps}))
    try:
        plan.surrogate()
    except PenstockError:
        return None
    with closing(InProcessStream()) as stream:
        learner, worker = plan.learner(stream), make_worker(plan.solving)
        for number, (design, count) in enumerate([("validation", VALIDATION_ROWS), ("training", ROWS)]):
            stream.submit(Lease(number=number, simulations=tuple(range(count)), design=design), worker)
        start = time.process_time()
        try:
            learner.run()
        except PenstockError:
            return [math.inf, math.nan]  # it diverged
        seconds = time.process_time() - start
    return [learner.status().training.validation["relative_l2"]["mean"], 1e3 * seconds / steps]


def _sections(record: Mapping[str, Sequence[float]]) -> Iterator[str]:
    names = [f"{optimizer} {rate:g}" for optimizer, rate in RECIPES]
    lengths = sorted({int(key.rpartition(" ")[2]) for key in record})
    for steps, (problem, (_, models)) in itertools.product(lengths, PROBLEMS.items()):
        rows = []
        for model in models:
            results = [record.get(_key(problem, model, *recipe, steps)) for recipe in RECIPES]
            if None in results:
                continue
            own = resolve(_configuration(problem, model)).config.training
            lowest = min(error for error, _ in results)
            taken = f"{own.optimizer.name} {own.learning_rate:g}"
            cells = []
            for name, (error, milliseconds) in zip(names, results, strict=True):
                cell = f"{error:.4f} ({milliseconds:.0f})" if error < 1 else "diverged"
                cells.append(f"{'**' * (error == lowest)}{cell}{'**' * (error == lowest)}{' *' * (name == taken)}")
            rows.append([model, *cells])
        if rows:
            yield f"## {problem}, {steps} steps\n\n{markdown(rows, ['model', *names])}"
