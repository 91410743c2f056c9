"""What a run takes of memory, and what is refused for want of it before anything is allocated."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.learner.buffers.watermark import MIN_SIMULATIONS
from penstock.learner.stream.stream import CHUNKS_AHEAD
from penstock.orchestrator.run.memory import Memory, size
from penstock.solvers.worker import CHUNK_BYTES

if TYPE_CHECKING:
    from penstock.orchestrator.config.config import Config
    from penstock.orchestrator.plan import Plan

WORKER_BYTES, LEARNER_BYTES = 110_000_000, 800_000_000  # a solver with DOLFINx; the learner, with Ray's own processes
DATA_SHARE = 0.25  # of the memory, is granted whatever the programs are thought to take
SLOT_BYTES = 100  # the buffer's book-keeping, with three parameters
VALIDATION_COPIES = 3  # of the set while it is gathered, and while it is read back
PREDICTION_COPIES = 4  # of draws that are predicted: as they come, put together, as rows, and what is written


def require_room(plan: Plan, num_workers: int) -> None:
    """Raises PenstockError unless the buffer holds a batch beside the simulations that are under way."""
    config, num_steps = plan.config, plan.unit.num_steps
    num_units, needed = config.buffer.capacity // num_steps, config.training.batch_size + num_workers
    if num_steps > 1 and num_units < needed:
        raise PenstockError(
            f"buffer.capacity: {config.buffer.capacity} samples are {num_units} simulations of {num_steps} steps, and "
            f"{needed} must fit, a batch and one for each worker: give at least {needed * num_steps}"
        )


def require_memory(plan: Plan, memory: Memory, *, num_workers: int, holds_buffer: bool = True) -> None:
    """Raises PenstockError unless the run's data fit beside the programs, before anything of them is allocated.

    The kernel grants more than there is and gives pages as they are written: the machine would fill as samples come,
    until Ray or the kernel kills whatever is largest.

    num_workers: solver workers that this memory has to hold, beside the learner. holds_buffer: whether the buffer's
    arrays lie in it, too.
    """
    config, room = plan.config, memory.room
    if num_workers * WORKER_BYTES > room:
        raise PenstockError(
            f"solver.workers: {num_workers} of them take {size(num_workers * WORKER_BYTES)} and more, and "
            f"{memory.name} has {size(room)} free"
        )
    taken = LEARNER_BYTES + num_workers * WORKER_BYTES + bytes_in_flight(plan, num_workers)
    room = max(room - taken, int(DATA_SHARE * room))
    where = f"{memory.name} has {size(room)} free for a run's data, beside its programs"
    buffer_bytes = config.buffer.capacity * sample_bytes(plan) if holds_buffer else 0
    validation_bytes = VALIDATION_COPIES * prod(validation_size(plan))
    weight_bytes = num_weights(config) * _weight_bytes(plan)
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


def too_large(plan: Plan, where: str, room: int) -> PenstockError:
    """The refusal of a buffer, with the capacity that would do."""
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
    """What a sample takes in the buffer, its book-keeping included."""
    unit = plan.unit
    num_bytes = sum(unit.num_kept(block) * block.num_bytes for block in plan.problem.layout.blocks.values())
    return -(-(num_bytes + SLOT_BYTES) // unit.num_steps)


def require_memory_for_draws(plan: Plan, num: int, memory: Memory) -> None:
    """Raises PenstockError unless `num` draws fit that are solved, predicted and written at once."""
    each = PREDICTION_COPIES * prod(validation_size(plan)) // plan.config.validation.simulations
    if num * each > memory.room:
        raise PenstockError(
            f"--num: {num} draws take {size(num * each)}, and {memory.name} has {size(memory.room)} free: at most "
            f"{memory.room // each} fit"
        )


def bytes_in_flight(plan: Plan, num_workers: int) -> int:
    """The most that is under way between workers and learner."""
    return num_workers * (CHUNKS_AHEAD + 1) * (CHUNK_BYTES + plan.problem.layout.sample_bytes)


def num_weights(config: Config) -> int:
    """How often a run has its model's weights: they, gradients, two moments, the validation's, a checkpoint's three.

    Where weights are averaged, the averaged ones and the checkpoint's copy of them come to that.
    """
    return 8 if config.training.ema_decay is None else 10


def _weight_bytes(plan: Plan) -> int:
    """Of a model that comes with penstock, without its memory; 0 for a user's own, which may do anything when built."""
    model = plan.model_without_memory()
    return 0 if model is None else sum(parameter.nbytes for parameter in model.parameters())


def few_simulations(plan: Plan) -> str | None:
    """A line to tell where the buffer is full before statistics are of MIN_SIMULATIONS simulations."""
    capacity, num_steps = plan.config.buffer.capacity, plan.problem.num_steps
    if capacity // num_steps >= MIN_SIMULATIONS:
        return None
    return (
        f"buffer.capacity: {capacity} samples are {capacity // num_steps} simulations of {num_steps} steps: means and "
        f"deviations will be of those alone; give at least {MIN_SIMULATIONS * num_steps}"
    )


def validation_size(plan: Plan) -> tuple[int, int]:
    """Rows of the validation set, where every simulation yields what its problem says, and bytes of a row."""
    unit = plan.unit
    rows_each = unit.num_choices if unit.num_steps > 1 else plan.problem.num_steps
    return plan.config.validation.simulations * rows_each, plan.batch_layout.sample_bytes
