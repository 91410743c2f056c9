"""The section `solver`: how simulations are solved, and by whom."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from penstock.orchestrator.config.sections import AsksClock, Choice, Named, OnResume, Section

DEFAULT_ACCURACY = 1e-4  # of a field of which a surrogate knows the third digit at best


class Steered(Section):
    """A number of workers that follows the reuse of samples."""

    min: int = Field(1, gt=0)
    """Workers at the start, and the fewest."""
    max: int = Field(gt=0)
    """The most workers, for which the run's memory must suffice."""
    reuse: float = Field(8.0, gt=0)
    """Samples drawn for training per new sample, over the last minute or so."""

    @field_validator("max")
    @classmethod
    def _is_not_below_min(cls, most: int, info: ValidationInfo) -> int:
        if most < info.data.get("min", 1):
            raise ValueError(f"it is below min = {info.data['min']}")
        return most


class SolverSection(Section):
    """How simulations are solved, and by whom."""

    workers: Annotated[
        Annotated[int, Field(gt=0)] | Literal["auto"] | Steered,
        OnResume.FIXED_IN_ORDER,
        AsksClock(lambda value: value == "auto", ": auto, which goes by the machine's cores: give a number"),
        AsksClock(lambda value: isinstance(value, Steered), ": {min, max}, which goes by the clock: give a number"),
    ] = "auto"
    """Solver processes.

    `auto` takes one for each core except one, and at least one: of this machine, or of all nodes of the cluster that
    the run joins. With `solver.ranks` above 1 it takes one for that many cores of a node. `{min: 1, max: 16, reuse: 8}`
    begins with `min` and changes the number so that a sample is trained on `reuse` times on average: [workers that come
    and go](../clusters.md#workers-that-come-and-go).
    """
    ranks: Annotated[
        int,
        AsksClock(lambda value: value > 1, ", whose sums depend on which message comes first: give 1"),
    ] = Field(1, gt=0)
    """MPI ranks of each solver worker, which solve a simulation together: [several ranks](../solvers.md#several-ranks).

    Each takes a core.
    """
    strategy: Annotated[Choice, OnResume.FIXED_IN_ORDER] = Named(name="auto")
    """How systems are solved.

    `auto`, one of the strategies below, or your own class as `./file.py:Class` or `package.module:Class`. [Linear
    solvers](../solvers.md) says which serves what.
    """
    accuracy: Annotated[float | None, OnResume.FIXED_IN_ORDER] = Field(None, gt=0, lt=1)
    """Bound on the algebraic error of a solution, the norm of x - A⁻¹ b over that of A⁻¹ b.

    `1e-4` where `solver.rtol` is absent as well: [accuracy](../solvers.md#accuracy).
    """
    accuracy_of: Annotated[Literal["value", "deviation"], OnResume.FIXED_IN_ORDER] = "value"
    """What `solver.accuracy` is relative to.

    All of A⁻¹ b, or its deviation from its mean, in which an [offset](../solvers.md#offsets) does not count.
    """
    rtol: Annotated[float | None, OnResume.FIXED_IN_ORDER] = Field(None, gt=0, lt=1)
    """Bound on the true relative residual, the norm of b - A x over that of b, instead of `solver.accuracy`.

    Every solution must reach it, with a backward error to match: [what counts as
    solved](../solvers.md#what-counts-as-solved).
    """
    window: Annotated[int, OnResume.FIXED_IN_ORDER] = Field(64, gt=0, le=100_000)
    """Simulations of a lease: how far a worker looks ahead to sort."""
    sort: Annotated[
        bool | Literal["auto"],
        OnResume.FIXED_IN_ORDER,
        AsksClock(lambda value: value == "auto", ": auto, which times windows: give true or false"),
    ] = "auto"
    """Order of a lease's systems.

    `true` for greedy nearest neighbours by the problem's features, `false` for the order of the draws, `auto` to sort
    where it pays: [sorting](../solvers.md#sorting).
    """
    timeout_s: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Seconds after which a worker that is [silent](../how-it-works.md#guarantees) in one simulation is replaced.

    `auto` takes 20 times the longest silence of any worker in this run, and at least 60 s; until the first simulation
    has ended there is no bound. Nobody watches the single worker of `penstock generate`, which solves in the command's
    own process, unless a number is given here or for `solver.memory_mb`: it then has its own process.
    """
    memory_mb: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Bound on a worker's private memory, in MB.

    A worker that has grown to it, and by at least half since its first chunk, is replaced between two simulations.
    `auto` takes a worker's share of 80 % of the memory of the machine or the container; in a joined cluster there is
    then no bound.
    """
    max_failed_fraction: float = Field(0.05, ge=0, le=1)
    """The run stops when more than this fraction of the last 200 simulations failed."""

    @model_validator(mode="before")
    @classmethod
    def _one_measure(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("accuracy") is None and values.get("rtol") is None:
            return values | {"accuracy": DEFAULT_ACCURACY}
        if values.get("accuracy") is not None and values.get("rtol") is not None:
            raise ValueError(
                "give accuracy, which bounds the error, or rtol, which bounds the residual; set the other to null"
            )
        if values.get("rtol") is not None and values.get("accuracy_of", "value") != "value":
            raise ValueError("accuracy_of says what accuracy is relative to: give accuracy with it, and not rtol")
        return values
