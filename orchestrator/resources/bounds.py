"""The memory that a run takes; too much is refused before it is allocated."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.learner.buffers.watermark import MIN_SIMULATIONS
from penstock.messages import CHUNK_BYTES, CHUNKS_UNDER_WAY
from penstock.orchestrator.resources.memory import Memory, least_memory, size

if TYPE_CHECKING:
    from penstock.orchestrator.config.config import Config
    from penstock.orchestrator.plan import Plan
    from penstock.orchestrator.solving import Solving

WORKER_BYTES, LEARNER_BYTES = 110_000_000, 800_000_000  # a solver with DOLFINx; the learner, with Ray's processes
DATA_SHARE = 0.25  # the share of the memory that data may take whatever the estimate of the programs
SLOT_BYTES = 100  # the buffer's bookkeeping per slot, with three parameters
VALIDATION_COPIES = 3  # of the set while it is collected, and while it is read back
PREDICTION_COPIES = 4  # of predicted draws: chunks, joined chunks, rows, and what is written


def require_room(plan: Plan, num_workers: int) -> None:
    """Check that the buffer holds a batch beside the simulations under way.

    Args:
        plan: the plan of the run.
        num_workers: number of solver workers.

    Raises:
        PenstockError: it does not.
    """
    config, num_steps = plan.config, plan.unit.num_steps
    num_units, needed = config.buffer.capacity // num_steps, config.training.batch_size + num_workers
    if num_steps > 1 and num_units < needed:
        raise PenstockError(
            f"buffer.capacity: {config.buffer.capacity} samples are {num_units} simulations of {num_steps} steps, and "
            f"{needed} must fit, a batch and one for each worker: give at least {needed * num_steps}"
        )


def require_memory(plan: Plan, memory: Memory, *, num_workers: int, holds_buffer: bool = True) -> None:
    """Check that the run's data fit into memory beside the programs.

    The kernel grants more than there is, and gives pages only as they are written. So without this check the machine
    would fill up as samples come in, until Ray or the kernel kills whatever is largest.

    Args:
        plan: the plan of the run.
        memory: the memory.
        num_workers: solver workers that it has to hold, beside the learner.
        holds_buffer: whether the buffer's arrays are in it too.

    Raises:
        PenstockError: the data do not fit; the message names the largest part and what would fit.
    """
    config, room = plan.config, memory.room
    worker_bytes = config.solver.ranks * WORKER_BYTES
    if num_workers * worker_bytes > room:
        raise PenstockError(
            f"solver.workers: {num_workers} of them take {size(num_workers * worker_bytes)} and more, and "
            f"{memory.name} has {size(room)} free"
        )
    taken = config.training.ranks * LEARNER_BYTES + num_workers * worker_bytes + bytes_in_flight(plan, num_workers)
    room = max(room - taken, int(DATA_SHARE * room))
    where = f"{memory.name} has {size(room)} free for a run's data, beside its programs"
    ranks = config.training.ranks
    buffer_bytes = ranks * config.buffer.capacity * sample_bytes(plan) if holds_buffer else 0
    validation_bytes = VALIDATION_COPIES * prod(validation_size(plan))
    weight_bytes = ranks * num_weights(config) * _weight_bytes(plan)
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
    raise too_large(plan, where, room - validation_bytes - weight_bytes)


def require_memory_for_workers(solving: Solving, memory: Memory, num: int) -> None:
    """Check that more workers fit into memory while a run goes.

    Args:
        solving: what the workers are built from.
        memory: the memory.
        num: number of workers that are added.

    Raises:
        PenstockError: they do not; the message says how many fit.
    """
    each = solving.config.solver.ranks * WORKER_BYTES + bytes_in_flight(solving, 1)
    if num * each > memory.room:
        raise PenstockError(
            f"{num} more take {size(num * each)} and more, and {memory.name} has {size(memory.room)} free: at most "
            f"{memory.room // each} fit"
        )


def too_large(plan: Plan, where: str, room: int) -> PenstockError:
    """The error for a buffer that is too large.

    Args:
        plan: the plan of the run.
        where: clause that names the memory and what is free in it.
        room: bytes that the buffer may take.

    Returns:
        The error, whose message names the capacity that would fit.
    """
    config, each = plan.config.buffer, sample_bytes(plan)
    most = max(0, room) // each
    advice = f"at most {most} fit"
    if most < config.watermark:
        advice += f", fewer than buffer.watermark = {config.watermark}: lower both, or make the samples smaller"
    return PenstockError(
        f"buffer.capacity: {config.capacity} samples of {size(each)} take {size(config.capacity * each)}, and {where}: "
        f"{advice}"
    )


def sample_bytes(plan: Plan) -> int:
    """Bytes of a sample in the buffer, with its share of the bookkeeping."""
    unit = plan.unit
    num_bytes = sum(unit.num_kept(block) * block.num_bytes for block in plan.problem.layout.blocks.values())
    return -(-(num_bytes + SLOT_BYTES) // unit.num_steps)


def require_memory_for_draws(plan: Plan, num: int, memory: Memory | None = None) -> None:
    """Check that draws fit into memory that are solved, predicted and written at once.

    Args:
        plan: the plan of the run.
        num: number of draws.
        memory: the memory; None for what this process may take.

    Raises:
        PenstockError: they do not; the message says how many fit.
    """
    memory = memory or least_memory()
    each = PREDICTION_COPIES * prod(validation_size(plan)) // plan.config.validation.simulations
    if num * each > memory.room:
        raise PenstockError(
            f"--num: {num} draws take {size(num * each)}, and {memory.name} has {size(memory.room)} free: at most "
            f"{memory.room // each} fit"
        )


def bytes_in_flight(solving: Solving, num_workers: int) -> int:
    """The most bytes that can be under way between workers and learner.

    Args:
        solving: what the workers are built from.
        num_workers: number of solver workers.

    Returns:
        Bytes, for CHUNKS_UNDER_WAY chunks of every worker.
    """
    return num_workers * CHUNKS_UNDER_WAY * (CHUNK_BYTES + solving.problem.layout.sample_bytes)


def num_weights(config: Config) -> int:
    """How many arrays of the size of the model's weights a run has.

    The weights, gradients, two moments, validation's copy, and a checkpoint's three; averaged weights and the
    checkpoint's copy of them are two more.

    Args:
        config: the configuration.

    Returns:
        The number.
    """
    return 8 if config.training.ema_decay is None else 10


def _weight_bytes(plan: Plan) -> int:
    """Bytes of a model's weights, without allocating them; 0 for a user's model."""
    model = plan.model_without_memory()
    return 0 if model is None else sum(parameter.nbytes for parameter in model.parameters())


def few_simulations(plan: Plan) -> str | None:
    """A note for the user if the buffer holds fewer than MIN_SIMULATIONS simulations."""
    capacity, num_steps = plan.config.buffer.capacity, plan.problem.num_steps
    if capacity // num_steps >= MIN_SIMULATIONS:
        return None
    return (
        f"buffer.capacity: {capacity} samples are {capacity // num_steps} simulations of {num_steps} steps: means and "
        f"deviations will come from those alone; give at least {MIN_SIMULATIONS * num_steps}"
    )


def validation_size(plan: Plan) -> tuple[int, int]:
    """Rows of the validation set if no simulation fails, and bytes of a row."""
    unit = plan.unit
    rows_each = unit.num_windows if unit.num_steps > 1 else plan.problem.num_steps
    return plan.config.validation.simulations * rows_each, plan.batch_layout.sample_bytes
