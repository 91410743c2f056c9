"""`penstock predict`: new draws, solved and predicted."""

from __future__ import annotations

import os
from pathlib import Path

from penstock.arrays import zarr_store
from penstock.errors import PenstockError
from penstock.learner.rollout.trajectories import trajectories
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.resources.bounds import require_memory_for_draws
from penstock.orchestrator.run.without_learner import new_samples
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.trained import load_surrogate, predictions
from penstock.orchestrator.views.pictures.samples import draw_comparison, names_of
from penstock.orchestrator.views.pictures.strips import Course, animate, draw_strip
from penstock.orchestrator.views.terminal.monitor import explained_lines, statistics
from penstock.orchestrator.views.terminal.screen import Form, Screen


def predict(
    folder: RunFolder, num: int, output: Path | None, form: Form = Form.PEOPLE, *, animates: bool = False
) -> None:
    """Solve new draws, predict them, and write a Zarr store and PNGs.

    Args:
        folder: the run.
        num: number of draws.
        output: the folder to write; None for predictions/ in the run folder.
        form: what is printed.
        animates: whether to write a GIF of the first trajectory too.

    Raises:
        PenstockError: there is no checkpoint, nothing could be solved, nothing can be written, or there is no
            trajectory to animate.
    """
    screen, plan = Screen(form), resolve(folder.config())
    require_memory_for_draws(plan, num)
    surrogate, _ = load_surrogate(folder, plan)
    target = output or folder.path / "predictions"
    try:  # before anything is solved
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PenstockError(f"can't write to {target}: {error.strerror}: give another --output") from error
    unit, layout = plan.unit, plan.problem.layout
    with screen.progress("draws") as progress:
        samples, *origins = new_samples(plan, num, screen.tell, progress.show)
    arrays, simulations, steps = unit.all_rows(samples, layout, *origins)
    layout = surrogate.layout
    validation = plan.validation(arrays, "cpu", (simulations, steps))
    named = zarr_store.by_name(arrays, layout)
    predicted = predictions(surrogate, named, validation.batch_size)
    errors = validation.errors(surrogate).as_dict()
    of_samples, of_outputs = validation.sample_errors()

    zarr_store.write(
        target / "predictions.zarr",
        named
        | {f"{name}_predicted": values for name, values in predicted.items()}
        | {"simulation": simulations, "step": steps, "relative_l2": of_samples},
        {"run": folder.path.name, "design": "prediction", "seed": plan.config.seed},
    )
    picture = target / "predictions.png"
    wrote = [os.path.relpath(target / "predictions.zarr")]
    if any(spec.on is not None for spec in layout.outputs):
        draw_comparison(picture, named, predicted, of_outputs, layout, names_of(simulations, steps, layout))
        wrote.append(os.path.relpath(picture))
    first = simulations == simulations.min()
    own = {name: array[first] for name, array in arrays.items()}
    rolled = trajectories(surrogate, unit, plan.problem.layout, own, simulations[first], steps[first])
    if rolled is not None and any(spec.on is not None for spec in plan.problem.outputs):
        course = Course.of(rolled, 0, plan.problem.layout, own)
        for draw, name in ((draw_strip, "rollout.png"), *(((animate, "rollout.gif"),) if animates else ())):
            draw(target / name, course)
            wrote.append(os.path.relpath(target / name))
    screen.say(f"relative L2 error of {len(of_samples)} samples: {statistics(errors['relative_l2'])}")
    if len(layout.outputs) > 1:
        for name, own in errors["fields"].items():
            screen.say(f"    {name}: {statistics(own['relative_l2'])}")
    for line in explained_lines(errors):
        screen.say(line)
    screen.say(f"wrote {' and '.join(wrote)}")
    screen.give("result", {"samples": len(of_samples), "errors": errors, "wrote": wrote})
    screen.drain()
    if animates and rolled is None:
        raise PenstockError(
            "--animate: this surrogate leads to one state alone: train one with buffer.draw: windows or trajectories"
        )
