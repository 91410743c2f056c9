"""Every model on the problem of its kind, trained for equal times by the command line."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.learner.cases import fno
from benchmarks.learner.page import footer
from benchmarks.report import FOLDER, paragraph, write
from benchmarks.surrogates.by_command_line import trained
from penstock.errors import PenstockError
from penstock.learner.models import MODELS
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.plan import resolve
from penstock.registry import nearest
from penstock.report import markdown

DEEPONETS = ("deeponet", "multi_onet", "pod_deeponet")
STEADY = (
    *("fno", "ffno", "uno", "unet", "mgno", "galerkin", "lsm", "localno", "codano", "cvit", "t1", "mg_tfno"),
    *("transolver", *DEEPONETS, "mlp", "moe"),
)
TRANSIENT = (
    *("fno", "ffno", "uno", "unet", "galerkin", "lsm", "localno", "codano", "cvit", "t1", "ditto", "st_fno"),
    *("transolver", "deeponet"),
)
POINTS = (
    *("transolver", "gino", "gaot", "geo_fno", "upt", "rigno", "branch_trunk", "pointnet", "mesh_graph_net", "mp_pde"),
    *("gnot", *DEEPONETS, "mlp"),
)
PROBLEMS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "darcy": ({"resolution": 64}, STEADY),
    "heat": ({}, TRANSIENT),
    "kdv_burgers": ({"case": "E2"}, TRANSIENT),
    "navier_stokes": ({}, TRANSIENT),
    "heat_l_shape": ({}, POINTS),
    "void_cell": ({}, POINTS),
    "poisson_with_hole": ({}, POINTS),
}
"""One problem of each kind of geometry, with and without time: its options, and the models of its kind."""
PUBLISHED: dict[str, tuple[str, dict[str, float]]] = {
    "darcy": (
        "of 12/3 at 85 x 85 after 500 epochs of 1000 samples on a GPU, as the table of Transolver's paper "
        "(arXiv 2402.02366) is remembered; Transolver's is of its form for grids, with convolutions in place of linear "
        "maps, which penstock's is not; DeepONets at 29 x 29 by Lu et al. (arXiv 2111.05512), as remembered too",
        {
            **{"fno": 0.0108, "uno": 0.0113, "ffno": 0.0077, "lsm": 0.0065, "galerkin": 0.0084, "transolver": 0.0057},
            **{"deeponet": 0.0291, "pod_deeponet": 0.0232},
        },
    ),
    "navier_stokes": (
        "at viscosity 1e-5 and 64 x 64, ten frames from the ten before, 1000 trajectories, from the same table, "
        "Transolver's again of its form for grids",
        {"fno": 0.1556, "uno": 0.1713, "ffno": 0.2322, "lsm": 0.1535, "galerkin": 0.1401, "transolver": 0.09},
    ),
    "void_cell": (
        'of the set "Elasticity" of Geo-FNO, 1000 samples of 972 points, from the tables in the repositories of '
        "Geo-FNO, GNOT, Transolver and LSM",
        {"geo_fno": 0.0229, "gnot": 0.0086, "transolver": 0.0064, "lsm": 0.0218},
    ),
}
"""What papers print for a problem like ours by model: its setting, and mean relative L2 errors."""
STEP_MS = 150.0  # of the FNO of the learner's bench, on a machine on which the minutes asked for are minutes
NUM_STEPS = 20
NUM_BEST = 3  # models of a problem that are trained with several seeds
RECORD = FOLDER / "zoo.json"
INTRODUCTION = """
Each model of a problem's kind that takes its fields, with its default options and those of `penstock train`, one
solver worker and two cores, trained for {minutes:g} minutes from the watermark on. These are minutes of a machine on
which a step of the FNO of `python -m benchmarks learner` takes {step_ms:g} ms: the step was measured before each
training, which took longer where the step did, so that trainings made at different hours and on different machines
compare. Where the best of a problem were trained with several seeds, their error is the mean. A step's time has waits
in it. Errors are relative L2, over {rows} simulations of the validation set. Published errors come from other settings,
and are there to show what hours on a GPU reach.
"""
HEADER = [
    *("model", "error, mean", "lowest to highest", "p99", "published"),
    *("parameters", "steps", "ms per step", "samples"),
]
ROWS = 100


@dataclass(frozen=True)
class Training:
    """What came of one training."""

    problem: str
    model: str
    seed: int
    minutes: float
    pace: float
    """How many minutes this machine was given for one, see `pace`."""
    error: float
    p99: float
    parameters: int
    steps: int
    step_ms: float
    samples: int


def run(problems: Sequence[str], models: Sequence[str] | None, minutes: float, seeds: int) -> None:
    """Train models, and write the table of all trainings there are.

    A training that the record has is not done again, so that a table can be made in parts: remove benchmarks/tables/
    zoo.json to begin afresh.

    Args:
        problems: names of PROBLEMS; all of them where there are none.
        models: names of models; all of each problem's kind where there are none.
        minutes: time of each training, see `pace`.
        seeds: trainings of the best models of each problem.

    Raises:
        PenstockError: there is no such problem or model.
    """
    for name, known in [(name, PROBLEMS) for name in problems] + [(name, MODELS) for name in models or ()]:
        if name not in known:
            raise PenstockError(f"{name!r} is not in the table; {nearest(name, known)}")
    record = [Training(**each) for each in json.loads(RECORD.read_text())] if RECORD.exists() else []
    done = {(each.problem, each.model, each.seed): each for each in record if each.minutes == minutes}
    others = [each for each in record if each.minutes != minutes]

    def train(problem: str, model: str, seed: int) -> None:
        if (problem, model, seed) in done or (values := _configuration(problem, model, seed)) is None:
            return
        measured = pace()
        print(f"{problem}, {model}, seed {seed}: {minutes * measured:.2f} minutes", file=sys.stderr, flush=True)
        done[problem, model, seed] = training = _training(values, minutes, measured)
        print(f"  {training.error:.4f} in {training.steps} steps", file=sys.stderr, flush=True)
        write(RECORD.name, json.dumps([asdict(each) for each in (*others, *done.values())], indent=1) + "\n")

    for problem in problems or PROBLEMS:
        for model in models or PROBLEMS[problem][1]:
            train(problem, model, 0)
        for model in _in_order(problem, done.values())[:NUM_BEST]:
            for seed in range(1, seeds):
                train(problem, model, seed)
    text = INTRODUCTION.format(minutes=minutes, step_ms=STEP_MS, rows=ROWS)
    page = [
        f"# The models, compared\n\n{paragraph(text)}\n",
        *_sections(done.values()),
        footer(torch.device("cpu"), "zoo"),
        "",
    ]
    write("zoo.md", "\n".join(page))


def pace() -> float:
    """How many minutes this machine needs now for one of a machine whose step takes STEP_MS."""
    case, times = fno(), []
    step = case.step(torch.device("cpu"))
    arrays = {name: torch.randn(case.batch_size, *shape) for name, shape in case.layout.shapes.items()}
    for _ in range(NUM_STEPS):
        start = time.perf_counter()
        step(arrays, 1e-3)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times) / STEP_MS


def _configuration(problem: str, model: str, seed: int) -> dict[str, Any] | None:
    """The configuration of a training; None where the model does not take the problem's fields."""
    values = {
        "name": f"{problem}-{model}",
        "seed": seed,
        "problem": {"name": problem, **PROBLEMS[problem][0]},
        "solver": {"workers": 1},
        "model": model,
        "training": {"stop_after": {"steps": 1}, "device": "cpu"},
        "validation": {"simulations": ROWS},
    }
    with suppress(PenstockError):
        resolve(Config.model_validate(values)).surrogate()
        return values
    return None


def _training(values: Mapping[str, Any], minutes: float, pace: float) -> Training:
    surrogate = resolve(Config.model_validate(values)).surrogate()
    with torch.no_grad():
        parameters = sum(each.numel() for each in surrogate.parameters())
    summary = trained(values | {"training": values["training"] | {"stop_after": {"minutes": minutes * pace}}})
    errors = summary["validation"]["relative_l2"]
    return Training(
        problem=values["problem"]["name"],
        model=values["model"],
        seed=values["seed"],
        minutes=minutes,
        pace=pace,
        error=errors["mean"],
        p99=errors["p99"],
        parameters=parameters,
        steps=summary["step"],
        step_ms=1e3 * summary["train_seconds"] / max(1, summary["step"]),
        samples=summary["unique"],
    )


def _in_order(problem: str, trainings: Sequence[Training]) -> list[str]:
    """The models of a problem, by their errors with the first seed."""
    first = sorted((each.error, each.model) for each in trainings if each.problem == problem and each.seed == 0)
    return [model for _, model in first]


def _sections(trainings: Sequence[Training]) -> Iterator[str]:
    for problem in PROBLEMS:
        setting, published = PUBLISHED.get(problem, ("", {}))
        rows = []
        for model in _in_order(problem, trainings):
            each = [training for training in trainings if (training.problem, training.model) == (problem, model)]
            errors = [training.error for training in each]
            spread = f"{min(errors):.4f} to {max(errors):.4f} of {len(each)} seeds" if len(each) > 1 else ""
            first = min(each, key=lambda training: training.seed)
            rows.append(
                [
                    *(
                        model,
                        f"{statistics.mean(errors):.4f}",
                        spread,
                        f"{first.p99:.4f}",
                        str(published.get(model, "")),
                    ),
                    *(f"{first.parameters:,}", f"{first.steps:,}", f"{first.step_ms:.1f}", f"{first.samples:,}"),
                ]
            )
        if rows:
            note = paragraph(f"\nPublished errors are {setting}.\n") + "\n" if published else ""
            yield f"## {problem}\n\n{markdown(rows, HEADER)}\n{note}"
