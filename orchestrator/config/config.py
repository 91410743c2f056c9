"""The keys of a run's configuration, with their bounds and meanings."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from penstock.errors import PenstockError
from penstock.orchestrator.config.complaints import validated
from penstock.orchestrator.config.launch import ClusterSection, LaunchSection
from penstock.orchestrator.config.metrics import MetricsSection
from penstock.orchestrator.config.reading import laid_over, read_site, read_values
from penstock.orchestrator.config.sections import AsksClock, ByName, Choice, Named, OnResume, Section
from penstock.orchestrator.config.solver import SolverSection, Steered


class ProblemSection(Named):
    """The PDE, and what is drawn for it."""

    name: str
    """The PDE.

    A name that `penstock problems` lists, or your own class as `./file.py:Class` (relative to the YAML file) or
    `package.module:Class`.
    """
    parameters: Mapping[str, Any] = {}
    """Parameters that are drawn from less than the problem says, by name: [parameters](../training.md#parameters).

    A number fixes a parameter, `[low, high]` narrows its range. Of a choice of values, give one or a list.
    """
    design: Literal["monte_carlo", "sobol", "halton", "latin_hypercube"] = "monte_carlo"
    """How the parameters of the training simulations cover their space: [designs](../training.md#designs).

    `monte_carlo` draws them independently. The validation set is drawn so whatever is named here.
    """
    swap: bool = False
    """Whether the surrogate learns the [inverse map](../training.md#inverse-maps), from outputs to inputs."""


class BufferSection(Section):
    """What is kept for training, and how batches are drawn."""

    kind: Annotated[Choice, OnResume.FIXED] = Named(name="reservoir")
    """Which samples are drawn and which are replaced.

    One of the policies below, or your own class as `./file.py:Class` or `package.module:Class`: [a policy of your
    own](training.md#a-policy-of-your-own).
    """
    capacity: Annotated[int, OnResume.FIXED] = Field(1000, gt=0)
    """Samples that the buffer holds."""
    watermark: int = Field(100, gt=0)
    """Samples that must have arrived before training starts, at most the capacity.

    Normalisation is fixed from them. They are [of at least 10 simulations](../training.md#normalisation).
    """
    batches_per_simulation: Annotated[
        float | None,
        AsksClock(lambda value: value is None, ": null, which lets the faster side run ahead: give a number"),
    ] = Field(None, gt=0)
    """Rate limiter: training and ingestion wait for each other to keep this ratio. Absent, neither waits."""
    placement: Literal["auto", "host", "device"] = "auto"
    """Where samples are stored.

    In the host's memory (pinned where training is on a GPU) or in the GPU's. `auto` takes the GPU's if the buffer fits
    into half of what training leaves free there, and the run says which it took.
    """
    draw: Annotated[Choice, OnResume.FIXED] = Named(name="samples")
    """What a row of a batch is: [what is drawn](../training.md#what-is-drawn).

    One of the draws below, or your own class as `package.module:Class`; no `./file.py`.
    """

    @model_validator(mode="after")
    def _watermark_fits(self):
        if self.watermark > self.capacity:
            raise ValueError(f"watermark = {self.watermark} is above capacity = {self.capacity}: training never starts")
        return self


class StopAfterSection(Section):
    """When training ends: at the first limit that is reached."""

    minutes: Annotated[
        float | None, AsksClock(lambda value: value is not None, ": give steps, samples or simulations")
    ] = Field(None, gt=0)
    """Minutes of training, from the watermark on.

    Waits and the time before a resume count, compiling the step does not. A run that still waits for its first step
    also ends once nothing has been solved for this many minutes.
    """
    steps: int | None = Field(None, gt=0)
    """Optimizer steps."""
    samples: int | None = Field(None, gt=0)
    """Unique samples."""
    simulations: Annotated[int | None, OnResume.FIXED_IN_ORDER] = Field(None, gt=0)
    """Simulations delivered or failed. Then the stream ends and the buffer is drained."""
    error: Annotated[
        float | None,
        AsksClock(lambda value: value is not None, ", which is looked at by the clock: leave it out"),
    ] = Field(None, gt=0)
    """Mean relative L2 validation error at which to stop early.

    Not enough alone: the learning rate can't be planned by it.
    """

    @model_validator(mode="after")
    def _gives_a_schedule(self):
        if all(limit is None for limit in (self.minutes, self.steps, self.samples, self.simulations)):
            raise ValueError("give minutes, steps, samples or simulations: the learning rate follows them")
        return self


class ScheduleSection(Section):
    """How the learning rate runs."""

    shape: Literal["cosine", "constant", "step", "plateau", "one_cycle"] = "cosine"
    """Learning rate after the warm-up.

    Half a cosine down to zero, the peak, the peak halved at each quarter of the schedule's length, the peak and in the
    last fifth a straight line down to zero, or the one-cycle policy.
    """
    warm_up: float | None = Field(None, ge=0, lt=1)
    """The part of the schedule in which the learning rate rises.

    It rises linearly from a tenth of its peak; with `one_cycle` by half a cosine from 1/25. Absent, the part is 0.04;
    with `one_cycle` 0.3.
    """
    minutes: Annotated[float | None, AsksClock(lambda value: value is not None, ": give steps or samples")] = Field(
        None, gt=0
    )
    """Length of the schedule in wall time. Without any length it runs along `training.stop_after`."""
    steps: int | None = Field(None, gt=0)
    """Length in optimizer steps instead."""
    samples: int | None = Field(None, gt=0)
    """Length in unique samples instead."""

    @model_validator(mode="after")
    def _one_length(self):
        given = [name for name in ("minutes", "steps", "samples") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}: a schedule has one length")
        return self


class RolloutSection(Section):
    """Training for [rollouts](../training.md#rollouts).

    It needs inputs that are outputs of the step before.
    """

    pushforward: int = Field(0, ge=0)
    """Most applications of the surrogate, without a gradient, whose outcome is the input that a step trains on.

    Their number is drawn from 0 to this for each step. Not with `buffer.draw: samples`.
    """
    noise: float = Field(0.0, ge=0)
    """Standard deviation of normal noise on those inputs, divided by theirs."""


class TrainingSection(Section):
    """The optimisation."""

    batch_size: int = Field(8, gt=0)
    """Rows of a batch, at most the watermark: [samples, windows or trajectories](../training.md#what-is-drawn).

    On a CPU an FNO learns most per second from small batches; an MLP, and a GPU, take more rows in the same time: raise
    it there.
    """
    micro_batch_size: int | None = Field(None, gt=0)
    """Rows that pass through the model at a time, in validation too, at most the batch size.

    Gradients are summed over the batch, so only the memory of a step changes. Absent, the whole batch passes at once.
    """
    learning_rate: float | None = Field(None, gt=0)
    """Peak of the schedule.

    Absent, it is what suits the model, which `penstock models show NAME` says; for another optimizer than the model's
    own, and for your models, 0.004.
    """
    optimizer: Annotated[Choice | None, OnResume.FIXED] = None
    """What changes the weights by their gradients: one of the optimizers below.

    Or a class as `package.module:Class`, of torch.optim or like those; no `./file.py`. Absent, it is what suits the
    model; for your models `adamw`.
    """
    schedule: ScheduleSection = ScheduleSection()
    loss: Choice = Named(name="relative_l2")
    """What a step reduces: the mean over the batch, in multiples of the target channels' standard deviations.

    One of the losses below, or your own class as `package.module:Class`; no `./file.py`.
    """
    output_weights: dict[str, Annotated[float, Field(gt=0)]] = Field({})
    """How much outputs count in the loss, by name; those that are left out count 1.

    A squared norm counts that often, in the error as in the target it is divided by.
    """
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of a step's gradient; absent, gradients are taken as they are."""
    ema_decay: Annotated[float | None, OnResume.FIXED] = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then validated, exported and predicted with.

    Absent, there is no average.
    """
    rollout: RolloutSection = RolloutSection()
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` computes everything in bfloat16 except spectral layers, normalisation and loss.

    Weights stay float32.
    """
    compile: Annotated[
        bool, AsksClock(lambda value: value, ": true, whose kernels depend on the batches before: give false")
    ] = False
    """Compile the step with torch.compile, which takes up to minutes at the start."""
    stop_after: StopAfterSection
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`. `auto` takes a GPU if torch sees one."""
    ranks: Annotated[
        int,
        OnResume.FIXED,
        AsksClock(lambda value: value > 1, ", whose buffers depend on which worker was free: give 1"),
    ] = Field(1, gt=0)
    """Learner processes that [train together](../training.md#several-learner-ranks), each with a GPU or a share of the
    cores, and with a buffer and workers for itself. A step takes `batch_size` rows of each.
    """

    @model_validator(mode="after")
    def _micro_batches_fit(self):
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_size:
            raise ValueError(f"micro_batch_size = {self.micro_batch_size} is above batch_size = {self.batch_size}")
        return self


class ValidationSection(Section):
    """What the surrogate is measured on."""

    simulations: Annotated[int, OnResume.FIXED] = Field(100, gt=0)
    """Simulations of the validation set: solved first, with the direct strategy, and never trained on."""
    every_s: float = Field(30.0, gt=0)
    """Seconds of training between two validations."""


class CheckpointSection(Section):
    """What is saved, and when."""

    every_s: float = Field(120.0, gt=0)
    """Seconds of training between two checkpoints. There is one more at the end."""
    keep: int = Field(2, gt=0)
    """Newest checkpoints that are kept, besides the best one."""
    buffer: Annotated[
        bool, AsksClock(lambda value: not value, ": false, because a buffer that is refilled differs: give true")
    ] = True
    """Save the buffer too. Without it a resumed run solves again what was in the buffer."""


ELSEWHERE = frozenset({"cluster", "launch", "metrics", "monitor"})
"""Sections that say where a run is and what shows it, which are left out of what leaves the machine."""
Monitor = Literal["tensorboard", "wandb", "mlflow"]
"""Name of a program that shows runs, a key of `views.sinks.by_name.SINKS`."""


class Config(Section):
    """Everything that a run is, so that its `config.yaml` alone repeats it."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """First part of the run folder's name.

    Letters, digits, `.`, `-` and `_`, beginning with a letter or digit.
    """
    seed: Annotated[int, OnResume.FIXED] = Field(0, ge=0, lt=2**63)
    """Seed of the draws, of the initial weights, and of the buffer's random choices."""
    deterministic: bool = False
    """Make a run that was killed and resumed equal the uninterrupted one bit for bit.

    It is slower, and refuses [some options](../configuration.md#what-deterministic-refuses): [what it asks
    for](../training.md#runs-that-repeat-to-the-bit).
    """
    problem: Annotated[ProblemSection, ByName, OnResume.FIXED]
    solver: SolverSection = SolverSection()
    buffer: BufferSection = BufferSection()
    model: Annotated[Choice | None, OnResume.FIXED] = None
    """The surrogate's architecture.

    A name that `penstock models` lists, or your own class as `./file.py:Class` or `package.module:Class`. Absent, it is
    what suits the problem's fields: [`fno` on a grid, `transolver` on a mesh](../models/index.md#how-to-choose).
    """
    training: TrainingSection
    validation: ValidationSection = ValidationSection()
    checkpoint: CheckpointSection = CheckpointSection()
    metrics: MetricsSection = MetricsSection()
    monitor: list[Monitor] = Field([])
    """Programs that show the run besides penstock: [what they get](../metrics.md#tensorboard-wandb-and-mlflow)."""
    cluster: ClusterSection = ClusterSection()
    launch: LaunchSection = LaunchSection()

    @model_validator(mode="after")
    def _buffer_feeds_batches(self):
        if self.training.batch_size > self.buffer.watermark:
            raise ValueError(
                f"training.batch_size = {self.training.batch_size} is above buffer.watermark = "
                f"{self.buffer.watermark}: a batch holds distinct samples"
            )
        return self

    @model_validator(mode="after")
    def _reuse_is_free(self):
        if isinstance(self.solver.workers, Steered) and self.buffer.batches_per_simulation is not None:
            raise ValueError(
                "solver.workers = {min, max} steers the reuse that buffer.batches_per_simulation fixes: leave one out"
            )
        return self


def load_config(path: Path, overrides: tuple[str, ...] = (), site: Path | None = None) -> Config:
    """The configuration of a YAML file, with overrides laid over it.

    Args:
        path: the YAML file. A `./file.py` in it is taken relative to its folder, and so are the files of `external`.
        overrides: `key=value`, with full dotted keys and values in YAML.
        site: a YAML file with the section `launch` of a site, over which the configuration's is laid.

    Returns:
        The configuration, with the default of every key that is absent.

    Raises:
        PenstockError: the file can't be read, or a key or value is refused; the message names file and key, and says
            what would do.
    """
    values = read_values(path, overrides)
    if site is not None:
        values = laid_over(read_site(site), values)
    config = validated(Config, values, str(path))
    config = with_files(config, lambda _, file: str(path.parent / file))
    config = config.model_copy(update={"metrics": config.metrics.beside(path.parent)})
    noting = {"external": _standing_alone, "store": _as_it_is_now}.get(config.problem.name)
    if noting is None:
        return config
    return config.model_copy(update={"problem": noting(config.problem, path.parent)})


def _as_it_is_now(problem: ProblemSection, folder: Path) -> ProblemSection:
    """A store's section, with the number of its shards: it may grow during the run."""
    from penstock.solvers.stored.samples import SampleStore  # NumPy and Zarr, as above

    options = problem.options
    if options.get("num_shards") is not None or not isinstance(options.get("path"), str):
        return problem
    with suppress(PenstockError):  # which the problem reports
        return problem.model_copy(update={"num_shards": len(SampleStore(Path(options["path"])).shards)})
    return problem


def _standing_alone(problem: ProblemSection, folder: Path) -> ProblemSection:
    """An external program's section, as it means the same everywhere.

    The spec is read, and the words of the command that are relative paths become absolute.
    """
    from penstock.solvers.external.spec import read_spec  # NumPy, which other configurations do without

    changes, options = {}, problem.options
    if isinstance(spec := options.get("spec"), str):
        changes["spec"] = read_spec(folder / spec)
    if isinstance(command := options.get("command"), str):
        with suppress(ValueError):  # a quote without its end, which the problem refuses
            changes["command"] = shlex.join(
                os.path.abspath(folder / word) if word.startswith(("./", "../")) else word
                for word in shlex.split(command)
            )
    return problem.model_copy(update=changes)


def with_files(config: Config, place: Callable[[str, str], str]) -> Config:
    """The configuration with every `file.py` in it under a new name.

    Args:
        config: the configuration.
        place: returns a file's new name, given what it is for (problem, strategy, policy, model) and its name.

    Returns:
        The changed configuration.
    """

    def placed(key: str, choice: Named) -> Named:
        file, colon, attribute = choice.name.rpartition(":")
        if not colon or not file.endswith(".py"):
            return choice
        return choice.model_copy(update={"name": f"{place(key, file)}:{attribute}"})

    solver, buffer = config.solver, config.buffer
    return config.model_copy(
        update={
            "problem": placed("problem", config.problem),
            "solver": solver.model_copy(update={"strategy": placed("strategy", solver.strategy)}),
            "buffer": buffer.model_copy(update={"kind": placed("policy", buffer.kind)}),
            "model": config.model and placed("model", config.model),
        }
    )
