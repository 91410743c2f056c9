"""What is checked before a run is started or launched."""

from __future__ import annotations

from penstock.orchestrator.plan import Plan
from penstock.orchestrator.resources.bounds import require_memory, require_room
from penstock.orchestrator.resources.cores import split_here
from penstock.orchestrator.resources.memory import least_memory
from penstock.orchestrator.resources.placement import device_of, require_placement
from penstock.orchestrator.views.sinks.by_name import require_packages


def require_startable(plan: Plan) -> None:
    """Check everything that can be known before a process is started.

    Args:
        plan: the plan of the run.

    Raises:
        PenstockError: the run would fail.
    """
    config = plan.config
    plan.require_ready()
    plan.strategy()
    plan.policy()
    require_packages(config.monitor)
    if config.cluster.address is None:  # a cluster's nodes are known, and what they have, once it is joined
        split = split_here(config)
        require_room(plan, split.most)
        split.require_cores(config.solver)
        device = device_of(config)
        require_placement(plan, device)
        holds_buffer = device.type == "cpu" or config.buffer.placement == "host"
        require_memory(plan, least_memory(), num_workers=split.most, holds_buffer=holds_buffer)
    plan.surrogate()
    plan.loss()
