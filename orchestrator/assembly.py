"""From a run's configuration to the parts of its learner."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import torch

from penstock.errors import PenstockError
from penstock.learner.buffers.buffer import BUFFERS, MIN_SIMULATIONS, Buffer
from penstock.learner.buffers.units import DRAWS, Draw, Samples
from penstock.learner.learner import Learner
from penstock.learner.losses.losses import LOSSES, Sobolev
from penstock.learner.models import MODELS
from penstock.learner.normalization import Normalization
from penstock.learner.rehearsal import rehearse, try_out
from penstock.learner.schedules import Schedule
from penstock.learner.settings import Settings, StopAfter
from penstock.learner.step import Step
from penstock.learner.store import Store
from penstock.learner.stream.order import Deterministic, FreeRunning, Order
from penstock.learner.stream.stream import CHUNKS_AHEAD, Stream
from penstock.learner.surrogate import Surrogate
from penstock.learner.validation.validation import BATCH_SIZE, Validation
from penstock.orchestrator.blueprint import Blueprint
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.run.memory import Memory, least_memory, size
from penstock.registry import build, load_class
from penstock.sample import DTYPE
from penstock.solvers.worker import CHUNK_BYTES

WORKER_BYTES, LEARNER_BYTES = 110_000_000, 800_000_000  # a solver with DOLFINx; the learner, with Ray's own processes
DATA_SHARE = 0.25  # of the memory, is granted whatever the programs are thought to take
SLOT_BYTES = 100  # the buffer's book-keeping, with three parameters
VALIDATION_COPIES = 3  # of the set while it is gathered, and while it is read back
PREDICTION_COPIES = 4  # of draws that are predicted: as they come, put together, as rows, and what is written
OF_THE_PROBLEM = ("extent", "weights", "stiffness")  # options of losses that no configuration gives
DEVICE_SHARE = 0.5  # of what training leaves free on a GPU: a step's activations need the rest


def make_learner(blueprint: Blueprint, stream: Stream, store: Store) -> Learner:
    """The learner of a run, restored from what its store holds. Raises PenstockError."""
    config, device = blueprint.config, pick_device(blueprint.config.training.device)
    surrogate = make_surrogate(blueprint).to(device)
    buffer = _make_buffer(blueprint, device, surrogate.weight_bytes)
    problem = blueprint.problem()
    return Learner(
        make_step(blueprint, surrogate),
        buffer,
        stream,
        problem.layout,
        settings_of(config),
        store=store,
        order=order_of(config),
        quantile_names=problem.rank_names,
        tries_export=config.model.name not in MODELS,  # ours are known to export
    )


def settings_of(config: Config) -> Settings:
    training, validation, checkpoint = config.training, config.validation, config.checkpoint
    return Settings(
        batch_size=training.batch_size,
        stop_after=StopAfter(**training.stop_after.model_dump()),
        schedule=Schedule(**training.schedule.model_dump()),
        batches_per_simulation=config.buffer.batches_per_simulation,
        validation_simulations=validation.simulations,
        validation_batch_size=min(BATCH_SIZE, training.micro_batch_size or training.batch_size),
        validation_every_s=validation.every_s,
        checkpoint_every_s=checkpoint.every_s,
        checkpoints_kept=checkpoint.keep,
        saves_buffer=checkpoint.buffer,
    )


def order_of(config: Config) -> Order:
    if not config.deterministic:
        return FreeRunning()
    limit = config.training.stop_after.simulations
    return Deterministic(num_lanes=config.solver.workers, window=config.solver.window, limit=limit)


def make_draw(blueprint: Blueprint) -> Draw:
    """What a row of a batch is. Raises PenstockError for a problem that has no such rows."""
    choice = blueprint.config.buffer.draw
    cls = load_class(choice.name, DRAWS, "buffer.draw", takes_files=False)
    arguments = () if cls is Samples else (blueprint.problem().num_steps,)
    return build(cls, choice.options, "buffer.draw", *arguments)


def require_room(blueprint: Blueprint, num_workers: int) -> None:
    """Raises PenstockError unless the buffer holds a batch beside the simulations that are under way."""
    config, num_steps = blueprint.config, make_draw(blueprint).num_steps
    num_units, needed = config.buffer.capacity // num_steps, config.training.batch_size + num_workers
    if num_steps > 1 and num_units < needed:
        raise PenstockError(
            f"buffer.capacity: {config.buffer.capacity} samples are {num_units} simulations of {num_steps} steps, and "
            f"{needed} must fit, a batch and one for each worker: give at least {needed * num_steps}"
        )


def require_memory(blueprint: Blueprint, memory: Memory, *, num_workers: int, holds_buffer: bool = True) -> None:
    """Raises PenstockError unless the run's data fit beside the programs, before anything of them is allocated.

    The kernel grants more than there is and gives pages as they are written: the machine would fill as samples come,
    until Ray or the kernel kills whatever is largest.

    num_workers: solver workers that this memory has to hold, beside the learner. holds_buffer: whether the buffer's
    arrays lie in it, too.
    """
    config, room = blueprint.config, memory.room
    if num_workers * WORKER_BYTES > room:
        raise PenstockError(
            f"solver.workers: {num_workers} of them take {size(num_workers * WORKER_BYTES)} and more, and "
            f"{memory.name} has {size(room)} free"
        )
    taken = LEARNER_BYTES + num_workers * WORKER_BYTES + bytes_in_flight(blueprint, num_workers)
    room = max(room - taken, int(DATA_SHARE * room))
    where = f"{memory.name} has {size(room)} free for a run's data, beside its programs"
    buffer_bytes = config.buffer.capacity * sample_bytes(blueprint) if holds_buffer else 0
    validation_bytes = VALIDATION_COPIES * prod(validation_size(blueprint))
    weight_bytes = num_weights(config) * _weight_bytes(blueprint)
    if buffer_bytes + validation_bytes + weight_bytes <= room:
        return
    if weight_bytes > max(buffer_bytes, validation_bytes):
        raise PenstockError(
            f"model: the weights of {config.model.name} take {size(weight_bytes)} with gradients, moments and copies, "
            f"and {where}: give it fewer"
        )
    if validation_bytes > buffer_bytes:
        simulations = config.validation.simulations
        most = max(0, room - buffer_bytes - weight_bytes) * simulations // validation_bytes
        raise PenstockError(
            f"validation.simulations: {simulations} of them take {size(validation_bytes)} while they are read, and "
            f"{where}: at most {most} fit beside buffer and model"
        )
    raise _too_large(blueprint, where, room - validation_bytes - weight_bytes)


def _too_large(blueprint: Blueprint, where: str, room: int) -> PenstockError:
    """The refusal of a buffer, with the capacity that would do."""
    config, each = blueprint.config.buffer, sample_bytes(blueprint)
    most = max(0, room) // each
    advice = f"at most {most} fit"
    if most < config.watermark:
        advice += f", fewer than buffer.watermark = {config.watermark}: lower both, or make the samples smaller"
    return PenstockError(
        f"buffer.capacity: {config.capacity} samples of {size(each)} take {size(config.capacity * each)}, and {where}: "
        f"{advice}"
    )


def sample_bytes(blueprint: Blueprint) -> int:
    """What a sample takes in the buffer, its book-keeping included."""
    layout, draw = blueprint.problem().layout, make_draw(blueprint)
    num_values = sum(draw.num_kept(name) * prod(shape) for name, shape in layout.shapes.items())
    return -(-(DTYPE.itemsize * num_values + SLOT_BYTES) // draw.num_steps)


def require_memory_for_draws(blueprint: Blueprint, num: int, memory: Memory) -> None:
    """Raises PenstockError unless `num` draws fit that are solved, predicted and written at once."""
    each = PREDICTION_COPIES * prod(validation_size(blueprint)) // blueprint.config.validation.simulations
    if num * each > memory.room:
        raise PenstockError(
            f"--num: {num} draws take {size(num * each)}, and {memory.name} has {size(memory.room)} free: at most "
            f"{memory.room // each} fit"
        )


def bytes_in_flight(blueprint: Blueprint, num_workers: int) -> int:
    """The most that is under way between workers and learner."""
    return num_workers * (CHUNKS_AHEAD + 1) * (CHUNK_BYTES + blueprint.problem().layout.sample_bytes)


def num_weights(config: Config) -> int:
    """How often a run has its model's weights: they, gradients, two moments, the validation's, a checkpoint's three.

    Where weights are averaged, the averaged ones and the checkpoint's copy of them come to that.
    """
    return 8 if config.training.ema_decay is None else 10


def _weight_bytes(blueprint: Blueprint) -> int:
    """Of a model that comes with penstock, without its memory; 0 for a user's own, which may do anything when built."""
    choice = blueprint.config.model
    if choice.name not in MODELS:
        return 0
    with torch.device("meta"):
        model = build(
            MODELS[choice.name], choice.options, "model", make_draw(blueprint).layout(blueprint.problem().layout)
        )
    return sum(parameter.nbytes for parameter in model.parameters())


def few_simulations(blueprint: Blueprint) -> str | None:
    """A line to tell where the buffer is full before statistics are of MIN_SIMULATIONS simulations."""
    capacity, num_steps = blueprint.config.buffer.capacity, blueprint.problem().num_steps
    if capacity // num_steps >= MIN_SIMULATIONS:
        return None
    return (
        f"buffer.capacity: {capacity} samples are {capacity // num_steps} simulations of {num_steps} steps: means and "
        f"deviations will be of those alone; give at least {MIN_SIMULATIONS * num_steps}"
    )


def make_surrogate(blueprint: Blueprint) -> Surrogate:
    """The model of the configuration in its surrogate, untrained.

    Raises PenstockError, also for a model whose outputs don't fit.
    """
    layout = make_draw(blueprint).layout(blueprint.problem().layout)
    choice = blueprint.config.model
    model = build(
        load_class(choice.name, MODELS, "model.name", blueprint.model_source), choice.options, "model", layout
    )
    surrogate = Surrogate(model, Normalization.identity(layout), layout)
    try_out(surrogate, choice.name)
    return surrogate


def make_step(blueprint: Blueprint, surrogate: Surrogate) -> Step:
    """Of a surrogate that is on its device. Raises PenstockError."""
    training = blueprint.config.training
    return Step(
        surrogate,
        loss=make_loss(blueprint),
        learning_rate=training.learning_rate,
        precision=training.precision,
        compile=training.compile,
        micro_batch_size=training.micro_batch_size,
        clip_norm=training.clip_norm,
        ema_decay=training.ema_decay,
    )


def rehearse_model(blueprint: Blueprint, folder: Path) -> list[str]:
    """What the user should know of the model. Raises PenstockError where a run of it would fail or be wrong."""
    training = blueprint.config.training
    device = pick_device(training.device)
    drains = training.stop_after.simulations is not None  # then the last batch may be of any size
    notes = rehearse(
        lambda: make_surrogate(blueprint).to(device),
        lambda surrogate: make_step(blueprint, surrogate),
        lambda arrays: make_validation(blueprint, arrays, device),
        batch_sizes=(training.batch_size, 1) if drains else (training.batch_size,),
        folder=folder,
        must_repeat=blueprint.config.deterministic,
    )
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what is free decides where the buffer goes
    return notes


def make_loss(blueprint: Blueprint) -> Sobolev:
    """Raises PenstockError, also for a loss that the targets' grid does not allow."""
    choice = blueprint.config.training.loss
    for key in {"weights", "stiffness"} & choice.options.keys():
        raise PenstockError(f"training.loss.{key}: belongs to a mesh, and a configuration's problems are on grids")
    if "extent" in choice.options:
        raise PenstockError("training.loss.extent: is the problem's: give it in its FieldSpecs")
    cls = load_class(choice.name, LOSSES, "training.loss", takes_files=False)
    layout = make_draw(blueprint).layout(blueprint.problem().layout)
    takes_extent = "extent" in inspect.signature(cls).parameters
    loss = build(cls, choice.options | ({"extent": layout.extent} if takes_extent else {}), "training.loss")
    targets = torch.zeros(1, *layout.shapes["targets"])
    try:
        loss(targets, targets, 1.0)
    except (TypeError, ValueError) as error:
        raise PenstockError(f"training.loss: {error}") from error
    return loss


def make_validation(
    blueprint: Blueprint,
    arrays: Mapping[str, np.ndarray],
    device: torch.device | str,
    steps: np.ndarray | None = None,
) -> Validation:
    """Of rows of a validation set, and their steps where they have any.

    It takes no more at once than a forward pass of training does.
    """
    return Validation(
        arrays, steps=steps, batch_size=settings_of(blueprint.config).validation_batch_size, device=device
    )


def validation_size(blueprint: Blueprint) -> tuple[int, int]:
    """Rows of the validation set, where every simulation yields what its problem says, and bytes of a row."""
    problem, draw = blueprint.problem(), make_draw(blueprint)
    rows_each = draw.num_choices if draw.num_steps > 1 else problem.num_steps
    return blueprint.config.validation.simulations * rows_each, draw.layout(problem.layout).sample_bytes


def pick_device(name: str) -> torch.device:
    """The device of `training.device` on this machine. Raises PenstockError where there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise PenstockError(f"training.device: there is no {name!r}; give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise PenstockError(
            f"training.device: {name!r} was asked for and torch sees {torch.cuda.device_count()} GPUs here: "
            "give cpu or auto, or install a torch built for your GPU"
        )
    return device


def require_placement(blueprint: Blueprint, device: torch.device) -> None:
    """Raises PenstockError where samples are to lie in the memory of a GPU and training runs on the CPU."""
    if blueprint.config.buffer.placement == "device" and device.type == "cpu":
        raise PenstockError("buffer.placement: 'device' was asked for and training runs on the CPU: give host or auto")


def fits_beside_training(num_bytes: int, num_free: int, weight_bytes: int, *, is_averaged: bool) -> bool:
    """Whether a buffer of num_bytes leaves training what it needs of a GPU's num_free bytes, the weights being there.

    Still to come are gradients, AdamW's two moments, the validation's weights, and averaged ones where there are any.
    """
    num_weights = 4 + is_averaged
    return num_bytes <= DEVICE_SHARE * (num_free - num_weights * weight_bytes)


def _make_buffer(blueprint: Blueprint, device: torch.device, weight_bytes: int) -> Buffer:
    """In the device's memory, or in the host's, page-locked where batches go to a GPU. Raises PenstockError."""
    require_placement(blueprint, device)
    config, layout = blueprint.config.buffer, blueprint.problem().layout
    is_gpu = device.type == "cuda"
    placement = config.placement
    if placement == "auto":
        fits = is_gpu and fits_beside_training(
            config.capacity * layout.sample_bytes,
            torch.cuda.mem_get_info(device)[0],
            weight_bytes,
            is_averaged=blueprint.config.training.ema_decay is not None,
        )
        placement = "device" if fits else "host"
    if placement == "host":
        require_memory(blueprint, least_memory(), num_workers=0)
    elif (free := torch.cuda.mem_get_info(device)[0]) < config.capacity * sample_bytes(blueprint):
        raise _too_large(blueprint, f"{torch.cuda.get_device_name(device)} has {size(free)} free", free)
    try:
        return BUFFERS[config.kind](
            layout,
            capacity=config.capacity,
            watermark=config.watermark,
            seed=blueprint.config.seed,
            device=device if placement == "device" else "cpu",
            pin_memory=is_gpu and placement == "host",
            draw=make_draw(blueprint),
        )
    except ValueError as error:
        raise PenstockError(f"buffer: {error}") from error
    except (RuntimeError, MemoryError) as error:  # others were quicker to take what was free
        reason = str(error).partition("\n")[0]
        raise _too_large(blueprint, f"the {placement} does not give it ({reason})", 0) from error
