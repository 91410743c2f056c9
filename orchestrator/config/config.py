"""A run's configuration: YAML, validated at load, with the key's name in every complaint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from penstock.errors import PenstockError
from penstock.registry import nearest


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


@dataclass(frozen=True)
class AsksClock:
    """A mark of a key: with some of its values a run does not repeat to the bit."""

    when: Callable[[Any], bool]
    why: str
    """Follows the key, and says what to give instead."""


class OnResume(Enum):
    """A mark of a key whose value can't change on resume."""

    FIXED = auto()
    """A checkpoint depends on it."""
    FIXED_IN_ORDER = auto()
    """The blocks of a run that must repeat do, and how they were solved."""


class Named(Section):
    """Something chosen by name, with its own options beside the name."""

    model_config = ConfigDict(extra="allow")

    name: str
    """A registered name, or a custom class as package.module:Class.

    A problem, strategy, policy or model also as ./file.py:Class.
    """

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra)


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Choice = Annotated[Named, BeforeValidator(_named)]
"""`direct` is short for `{name: direct}`."""


DEFAULT_ACCURACY = 1e-4  # of a field of which a surrogate knows the third digit at best


class SolverSection(Section):
    workers: Annotated[
        Annotated[int, Field(gt=0)] | Literal["auto"],
        OnResume.FIXED_IN_ORDER,
        AsksClock(lambda value: value == "auto", ": auto, which goes by the machine's cores: give a number"),
    ] = "auto"
    """Solver processes; auto takes one for each core but one, and at least one."""
    strategy: Annotated[Choice, OnResume.FIXED_IN_ORDER] = Named(name="auto")
    """How systems are solved: auto, or one by name with its options."""
    accuracy: Annotated[float | None, OnResume.FIXED_IN_ORDER] = Field(None, gt=0, lt=1)
    """Largest algebraic error ||x - A⁻¹ b|| / ||A⁻¹ b|| of a solution; 1e-4 where `rtol` is absent, too."""
    accuracy_of: Annotated[Literal["value", "deviation"], OnResume.FIXED_IN_ORDER] = "value"
    """What `accuracy` is relative to: all of A⁻¹ b, or its deviation from its mean, where an offset does not count."""
    rtol: Annotated[float | None, OnResume.FIXED_IN_ORDER] = Field(None, gt=0, lt=1)
    """Largest true relative residual ||b - A x|| / ||b||, instead of `accuracy`."""
    window: Annotated[int, OnResume.FIXED_IN_ORDER] = Field(64, gt=0, le=100_000)
    """Simulations of a lease: how far a worker looks ahead to sort."""
    sort: Annotated[
        bool | Literal["auto"],
        OnResume.FIXED_IN_ORDER,
        AsksClock(lambda value: value == "auto", ": auto, which times windows: give true or false"),
    ] = "auto"
    """Order of a lease's systems: true for greedy nearest neighbours, false as drawn, auto to sort where it pays."""
    timeout_s: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """A worker that gives nothing for this long in one simulation is replaced; auto goes by what others took."""
    memory_mb: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """A worker that has grown to this is replaced; auto takes its share of 80 % of the machine."""
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


class BufferSection(Section):
    kind: Annotated[Choice, OnResume.FIXED] = Named(name="reservoir")
    """Which samples are drawn and replaced: fifo, firo, reservoir, or a policy of your own."""
    capacity: Annotated[int, OnResume.FIXED] = Field(1000, gt=0)
    """Samples that the buffer holds."""
    watermark: int = Field(100, gt=0)
    """Samples that must have arrived before training starts; normalisation is fixed from them."""
    batches_per_simulation: Annotated[
        float | None,
        AsksClock(lambda value: value is None, ": null, which lets the faster side run ahead: give a number"),
    ] = Field(None, gt=0)
    """Rate limiter: training and ingest wait for each other to keep this ratio; absent, neither waits."""
    placement: Literal["auto", "host", "device"] = "auto"
    """Where samples lie: the host's memory, or that of the training device; auto takes the device's where they fit."""
    draw: Annotated[Choice, OnResume.FIXED] = Named(name="samples")
    """What a batch is made of: single samples, whole trajectories, or pairs of one simulation's samples."""

    @model_validator(mode="after")
    def _watermark_fits(self):
        if self.watermark > self.capacity:
            raise ValueError(f"watermark = {self.watermark} is above capacity = {self.capacity}: training never starts")
        return self


class StopAfterSection(Section):
    minutes: Annotated[
        float | None, AsksClock(lambda value: value is not None, ": give steps, samples or simulations")
    ] = Field(None, gt=0)
    """Of training, the time spent before a resume included."""
    steps: int | None = Field(None, gt=0)
    samples: int | None = Field(None, gt=0)
    """Unique samples."""
    simulations: Annotated[int | None, OnResume.FIXED_IN_ORDER] = Field(None, gt=0)
    """Delivered or failed; the buffer is drained afterwards."""
    error: Annotated[
        float | None,
        AsksClock(lambda value: value is not None, ", which is looked at by the clock: leave it out"),
    ] = Field(None, gt=0)
    """Mean relative L2 validation error at which to stop early."""

    @model_validator(mode="after")
    def _gives_a_schedule(self):
        if all(limit is None for limit in (self.minutes, self.steps, self.samples, self.simulations)):
            raise ValueError("give minutes, steps, samples or simulations: the learning rate follows them")
        return self


class ScheduleSection(Section):
    shape: Literal["cosine", "constant", "step"] = "cosine"
    """Of the learning rate after the warm-up: half a cosine down to zero, constant, or halved at each quarter."""
    warm_up: float = Field(0.04, ge=0, lt=1)
    """The part of the schedule in which the learning rate rises linearly."""
    minutes: Annotated[float | None, AsksClock(lambda value: value is not None, ": give steps or samples")] = Field(
        None, gt=0
    )
    steps: int | None = Field(None, gt=0)
    samples: int | None = Field(None, gt=0)
    """The schedule's length: wall time, steps or unique samples; absent, it is that of `stop_after`."""

    @model_validator(mode="after")
    def _one_length(self):
        given = [name for name in ("minutes", "steps", "samples") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {' and '.join(given)}: a schedule has one length")
        return self


class TrainingSection(Section):
    batch_size: int = Field(8, gt=0)
    micro_batch_size: int | None = Field(None, gt=0)
    """Samples that pass through the model at a time; gradients are summed over the batch. Absent, the whole batch."""
    learning_rate: float = Field(4e-3, gt=0)
    """Peak of the schedule."""
    schedule: ScheduleSection = ScheduleSection()
    loss: Choice = Named(name="relative_l2")
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of a step's gradient; absent, gradients are taken as they are."""
    ema_decay: Annotated[float | None, OnResume.FIXED] = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then what is validated and exported; absent, there is none."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 computes all but spectral layers, normalisation and loss in bfloat16; weights stay float32."""
    compile: Annotated[
        bool, AsksClock(lambda value: value, ": true, whose kernels depend on the batches before: give false")
    ] = False
    """Compile the step by torch.compile: minutes at the start, faster steps where the device has a compiler for it."""
    stop_after: StopAfterSection
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."""

    @model_validator(mode="after")
    def _micro_batches_fit(self):
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_size:
            raise ValueError(f"micro_batch_size = {self.micro_batch_size} is above batch_size = {self.batch_size}")
        return self


class ValidationSection(Section):
    simulations: Annotated[int, OnResume.FIXED] = Field(100, gt=0)
    """Solved first, with the direct strategy, and never trained on."""
    every_s: float = Field(30.0, gt=0)


class CheckpointSection(Section):
    every_s: float = Field(120.0, gt=0)
    keep: int = Field(2, gt=0)
    """Checkpoints kept, besides the best one."""
    buffer: Annotated[
        bool, AsksClock(lambda value: not value, ": false, for a buffer that is filled anew differs: give true")
    ] = True
    """Save the buffer too; without it a resumed run solves the buffer's simulations again."""


class MetricsSection(Section):
    port: Annotated[int, Field(gt=0, lt=65536)] | Literal["auto"] = "auto"
    """Port of the Prometheus endpoint on localhost; auto takes a free one."""


class ClusterSection(Section):
    address: str | None = None
    """A running Ray cluster, host:port or auto; absent, the run starts Ray on this machine and stops it again."""


class Config(Section):
    """Everything that a run is, so that its `config.yaml` alone repeats it."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """First part of the run folder's name: letters, digits, dots, dashes and underscores."""
    seed: Annotated[int, OnResume.FIXED] = Field(0, ge=0, lt=2**63)
    deterministic: bool = False
    """Make a run that was killed and resumed equal the uninterrupted one bit for bit, on one machine; it is slower."""
    problem: Annotated[Choice, OnResume.FIXED]
    """The PDE, with its options."""
    solver: SolverSection = SolverSection()
    buffer: BufferSection = BufferSection()
    model: Annotated[Choice, OnResume.FIXED] = Named(name="fno")
    """The surrogate's architecture, with its options."""
    training: TrainingSection
    validation: ValidationSection = ValidationSection()
    checkpoint: CheckpointSection = CheckpointSection()
    metrics: MetricsSection = MetricsSection()
    cluster: ClusterSection = ClusterSection()

    @model_validator(mode="after")
    def _buffer_feeds_batches(self):
        if self.training.batch_size > self.buffer.watermark:
            raise ValueError(
                f"training.batch_size = {self.training.batch_size} is above buffer.watermark = "
                f"{self.buffer.watermark}: a batch holds distinct samples"
            )
        return self


def marked[Mark](section: Section, kind: type[Mark], prefix: str = "") -> Iterator[tuple[str, Any, Mark]]:
    """Dotted key, value and mark of every key that has a mark of that kind."""
    for name, info in type(section).model_fields.items():
        key, value = f"{prefix}{name}", getattr(section, name)
        yield from ((key, value, mark) for mark in info.metadata if isinstance(mark, kind))
        if isinstance(value, Section):
            yield from marked(value, kind, f"{key}.")


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """The configuration of a YAML file, with `key=value` overrides laid over it.

    A `./file.py` in it is taken relative to the YAML file's folder.
    Raises PenstockError with the file, the key and what to do.
    """
    values = _read(path)
    for override in overrides:
        _override(values, override)
    config = _validate(values, str(path))
    return with_files(config, lambda _, file: str(path.parent / file))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise PenstockError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise PenstockError(f"{path} is a folder: give the YAML file of a run") from None
    except UnicodeDecodeError:
        raise PenstockError(f"{path} is not text: give the YAML file of a run") from None
    except OSError as error:
        raise PenstockError(f"{path}: {error.strerror}") from error
    try:
        values = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        raise PenstockError(f"{where}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise PenstockError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if values is None:
        raise PenstockError(f"{path} is empty: it needs at least `problem` and `training.stop_after`")
    if not isinstance(values, dict):
        raise PenstockError(f"{path}: a configuration is `key: value` pairs, this is a {type(values).__name__}")
    return values


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: PyYAML alone reads 1e-8 as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise PenstockError(f"{override!r}: an override reads key=value, for instance training.batch_size=32")
    *parents, last = key.split(".")
    for parent in parents:
        section = values.setdefault(parent, {})
        if isinstance(section, str):  # `strategy: krylov` with `strategy.pc=jacobi`
            section = values[parent] = {"name": section}
        if not isinstance(section, dict):
            raise PenstockError(f"{override!r}: {parent} is not a section")
        values = section
    try:
        values[last] = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise PenstockError(f"{override!r}: the value is not valid YAML") from None


def _validate(values: dict[str, Any], where: str) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        complaints: dict[str, list[str]] = {}
        for item in error.errors():
            subject, message = _complaint(item)
            complaints.setdefault(subject, []).append(message)
        lines = [": ".join(filter(None, (subject, " or ".join(said)))) for subject, said in complaints.items()]
        raise PenstockError(f"{where}: " + "; ".join(lines)) from None


def _complaint(error: Mapping[str, Any]) -> tuple[str, str]:
    """The key, with its value where that tells something, and what is wrong with it."""
    # A key that is `int | Literal["auto"]` gets one error a member, with the member's name at the end of its place.
    location = [str(part) for part in error["loc"]]
    key = ".".join(
        part for part in location if not re.fullmatch(r"(constrained-)?(int|float)|bool|literal\[.*\]", part)
    )
    if error["type"] == "extra_forbidden":
        section: Any = Config
        for part in location[:-1]:
            section = section.model_fields[part].annotation
        return key, f"unknown key; {nearest(location[-1], section.model_fields)}"
    if error["type"] == "missing":
        return key, "missing"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "model_type":
        is_choice = error["ctx"]["class_name"] == Named.__name__
        message = "give a name or {name: ..., option: value}" if is_choice else "give a section of `key: value` pairs"
    if error["type"] == "value_error" or isinstance(error["input"], dict):
        return key, message
    return f"{key} = {error['input']!r}", f"{message[0].lower()}{message[1:]}"


def with_files(config: Config, place: Callable[[str, str], str]) -> Config:
    """The configuration with every `file.py` in it put elsewhere.

    Args:
        config: the configuration.
        place: returns a file's new name, given what it is for (problem, strategy, policy, model) and its name.
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
            "model": placed("model", config.model),
        }
    )
