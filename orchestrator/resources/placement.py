"""The device a learner computes on, and the memory its buffer is in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from penstock.errors import PenstockError
from penstock.learner.buffers.buffer import Buffer
from penstock.machine import resident_bytes
from penstock.orchestrator.resources.bounds import require_memory, sample_bytes, too_large
from penstock.orchestrator.resources.memory import least_memory, size
from penstock.status import RankStatus

if TYPE_CHECKING:
    from penstock.orchestrator.config.config import Config
    from penstock.orchestrator.plan import Plan

DEVICE_SHARE = 0.5  # of what training leaves free on a GPU; the rest is for a step's activations


def pick_device(name: str) -> torch.device:
    """The device that a configuration names.

    Args:
        name: `training.device`.

    Returns:
        The device.

    Raises:
        PenstockError: this machine has no such device.
    """
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


def device_of(config: Config, rank: int = 0) -> torch.device:
    """The device of a learner rank.

    Args:
        config: the configuration.
        rank: number of the rank.

    Returns:
        The device; on a machine with several GPUs each rank has one, while in a cluster Ray shows it only its own.

    Raises:
        PenstockError: there is no such device, or not one for each rank.
    """
    training, num_ranks = config.training, config.training.ranks
    device = pick_device(training.device)
    if num_ranks == 1 or device.type == "cpu":
        return device
    if device.index is not None:
        raise PenstockError(
            f"training.device: {training.device!r} is one GPU, and training.ranks {num_ranks}: give cuda"
        )
    if config.cluster.address is not None:
        return torch.device("cuda", 0)
    if (num_gpus := torch.cuda.device_count()) < num_ranks:
        raise PenstockError(
            f"training.ranks: {num_ranks} ranks take a GPU each, and torch sees {num_gpus} here: give {num_gpus}, or "
            "training.device: cpu"
        )
    return torch.device("cuda", rank)


def rank_status() -> RankStatus:
    """What this process takes of its machine, as a learner rank."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    on_devices = [torch.cuda.memory_reserved(device) for device in devices]
    return RankStatus(resident_bytes=resident_bytes(os.getpid()), device_bytes=sum(on_devices) if on_devices else None)


def require_placement(plan: Plan, device: torch.device) -> None:
    """Check that samples are not to be in a GPU's memory while training is on the CPU.

    Args:
        plan: the plan of the run.
        device: the device of training.

    Raises:
        PenstockError: they are.
    """
    if plan.config.buffer.placement == "device" and device.type == "cpu":
        raise PenstockError("buffer.placement: 'device' was asked for and training runs on the CPU: give host or auto")


def fits_beside_training(num_bytes: int, num_free: int, weight_bytes: int, *, is_averaged: bool) -> bool:
    """Whether a buffer in a GPU's memory leaves training what it needs.

    The weights are already there; gradients, AdamW's two moments, validation's weights and perhaps averaged weights
    will follow.

    Args:
        num_bytes: size of the buffer.
        num_free: free bytes of the GPU.
        weight_bytes: size of the weights.
        is_averaged: whether weights are averaged.

    Returns:
        Whether it does.
    """
    num_weights = 4 + is_averaged
    return num_bytes <= DEVICE_SHARE * (num_free - num_weights * weight_bytes)


def make_buffer(plan: Plan, device: torch.device, weight_bytes: int, rank: int = 0) -> Buffer:
    """The buffer of a run, in the device's memory or the host's.

    Host memory is page-locked if training is on a GPU.

    Args:
        plan: the plan of the run.
        device: the device of training.
        weight_bytes: size of the model's weights.
        rank: number of the learner rank that fills it.

    Returns:
        The empty buffer.

    Raises:
        PenstockError: it does not fit, or can't be built from these options.
    """
    require_placement(plan, device)
    config, layout = plan.config.buffer, plan.problem.layout
    is_gpu = device.type == "cuda"
    placement = config.placement
    if placement == "auto":
        fits = is_gpu and fits_beside_training(
            config.capacity * layout.sample_bytes,
            torch.cuda.mem_get_info(device)[0],
            weight_bytes,
            is_averaged=plan.config.training.ema_decay is not None,
        )
        placement = "device" if fits else "host"
    if placement == "host":
        require_memory(plan, least_memory(), num_workers=0)
    elif (free := torch.cuda.mem_get_info(device)[0]) < config.capacity * sample_bytes(plan):
        raise too_large(plan, f"{torch.cuda.get_device_name(device)} has {size(free)} free", free)
    policy = plan.policy()
    try:
        return Buffer(
            layout,
            policy,
            capacity=config.capacity,
            watermark=config.watermark,
            seed=plan.config.seed + rank,
            device=device if placement == "device" else "cpu",
            pin_memory=is_gpu and placement == "host",
            unit=plan.unit,
        )
    except ValueError as error:
        raise PenstockError(f"buffer: {error}") from error
    except (RuntimeError, MemoryError) as error:  # another process took what was free
        reason = str(error).partition("\n")[0]
        raise too_large(plan, f"the {placement} refuses the memory ({reason})", 0) from error
