"""The store that a configuration generates: what must agree, and its lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import ProblemSection
from penstock.orchestrator.solving import Solving
from penstock.orchestrator.store.locks import hold
from penstock.registry import summary_of, with_defaults
from penstock.solvers.stored.samples import SampleStore, SampleWriter

DRAWS = ("parameters", "design")  # keys of `problem` that stores before them lack, which were written without them


@contextmanager
def held_writer(solving: Solving, output: Path | None) -> Iterator[SampleWriter | None]:
    """The writer of a store, locked for the length of a `with` block.

    What has ended is written when a signal, a dead worker or any other fault ends the block.

    Args:
        solving: what the samples depend on.
        output: the store; None for none.

    Yields:
        The writer; None without a store.

    Raises:
        PenstockError: the store can't be written, or holds other samples.
    """
    if output is None:
        yield None
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        lock = hold(output.with_name(f".{output.name}.lock"))  # it stays: who waits for a file that goes holds nothing
    except OSError as error:
        raise PenstockError(f"can't write {output}: {error.strerror}: give another --output") from error
    if lock is None:
        raise PenstockError(f"{output} is being written by another process: wait for its end")
    with lock:
        problem = solving.problem
        card = {"about": summary_of(type(problem)), "parameters": problem.space.describe()}
        writer = SampleWriter(output, problem.layout, problem.num_steps, _origin_for(output, solving), card)
        try:
            yield writer
        except BaseException:
            if writer.has_finished:  # where every simulation fails, the problem is at fault: they are to be tried again
                with suppress(PenstockError):  # of a failed write, which may be what ends the block
                    writer.flush()
            raise


def _origin_for(output: Path, solving: Solving) -> dict[str, Any]:
    """The origin, without defaults that an older store does not name."""
    origin = _origin(solving)
    theirs = SampleStore(output).origin if output.exists() else origin
    defaults = {key: ProblemSection.model_fields[key].default for key in DRAWS}
    return {key: value for key, value in origin.items() if key in theirs or key not in DRAWS or value != defaults[key]}


def _origin(solving: Solving) -> dict[str, Any]:
    """What the samples depend on."""
    config = solving.config
    return {
        "problem": Path(config.problem.name).name,  # where a file lay says nothing elsewhere
        "options": with_defaults(type(solving.problem), config.problem.options),
        **config.problem.model_dump(mode="json", include=set(DRAWS)),
        "source": solving.problem_source,
        "seed": config.seed,
        "solver": config.solver.model_dump(mode="json", include={"strategy", "accuracy", "accuracy_of", "rtol"}),
    }
