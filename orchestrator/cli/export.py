"""`penstock export`: a trained surrogate as one file."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from penstock.errors import PenstockError
from penstock.learner.export.card import arguments
from penstock.learner.export.files import FORMATS, card_path
from penstock.learner.export.files import export as export_file
from penstock.orchestrator.plan import resolve
from penstock.orchestrator.store.run_folder import RunFolder
from penstock.orchestrator.store.run_store import RunStore
from penstock.orchestrator.store.trained import about, load_surrogate
from penstock.orchestrator.views.terminal.monitor import explained_lines, statistics
from penstock.orchestrator.views.terminal.screen import Form, Screen
from penstock.registry import nearest

USE = {
    "pt2": "use it with torch alone:\n    model = torch.export.load({path!r}).module()",
    "onnx": "use it with onnxruntime, without torch, or by penstock:\n    model = penstock.load({path!r})",
    "safetensors": "use it by penstock, with the code of the model:\n    model = penstock.load({path!r})",
}
"""How a file is opened, by its format."""


def export(folder: RunFolder, output: Path | None, kind: str = "pt2", form: Form = Form.PEOPLE) -> None:
    """Write the best surrogate as one file, its card inside and beside it.

    Args:
        folder: the run.
        output: the file to write; None for <run>.<format> in the run folder.
        kind: the format, a key of FORMATS.
        form: what is printed.

    Raises:
        PenstockError: the run has no checkpoint, the format is unknown or does not take the model, or the file can't
            be written.
    """
    path = _with_suffix(output or folder.path / folder.path.name, kind)
    screen = Screen(form)
    with screen.progress("stages", is_even=False) as progress:
        progress.show(0, 3, "reading the run")
        plan = resolve(folder.config())
        surrogate, step = load_surrogate(folder, plan)
        layout = plan.problem.layout
        stored = RunStore(folder).read_validation(layout)
        arrays, *origins = plan.unit.all_rows(stored.arrays, layout, stored.simulations, stored.steps)
        progress.show(1, 3, "its errors on the validation set")
        card = {
            **about(folder, plan, step),
            "validation": {
                "simulations": len(set(stored.simulations.tolist())),
                **plan.validation(arrays, "cpu", origins).errors(surrogate).as_dict(),
            },
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        progress.show(2, 3, "tracing, comparing and writing it")
        own = surrogate.of_model
        path = export_file(own, card, path, {name: array[:2] for name, array in arrays.items()})
    names = ", ".join(f"{spec.name}=..." for _, spec in arguments(own.layout))
    wrote = [os.path.relpath(each) for each in (path, card_path(path))]
    for line in (
        f"validation relative L2 error: {statistics(card['validation']['relative_l2'])}",
        *explained_lines(card["validation"]),
        f"wrote {wrote[0]} and its card {wrote[1]}",
        *USE[kind].format(path=wrote[0]).splitlines(),
        f"    outputs = model({names})  # {'tensors' if kind == 'pt2' else 'arrays'} by name, shaped as the card says",
    ):
        screen.say(line)
    screen.give("result", {"format": kind, "step": step, "validation": card["validation"], "wrote": wrote})
    screen.drain()


def _with_suffix(path: Path, kind: str) -> Path:
    """The path with the suffix of a format.

    Raises PenstockError if it has that of another one.
    """
    if kind not in FORMATS:
        raise PenstockError(f"--format {kind}: {nearest(kind, FORMATS)}")
    if path.suffix[1:] in FORMATS.keys() - {kind}:
        raise PenstockError(f"{path} is named as --format {path.suffix[1:]} and --format is {kind}: change one of them")
    return path if path.suffix[1:] == kind else path.with_name(f"{path.name}.{kind}")
