"""How the CPUs of a machine or of a cluster are shared."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.errors import PenstockError
from penstock.orchestrator.config.config import Config
from penstock.orchestrator.config.solver import SolverSection, Steered

NODES_LISTED = 8  # in a line for people


@dataclass(frozen=True)
class Node:
    """What a node of a cluster has, or this machine."""

    name: str
    """Name for people."""
    cpus: int
    """Its CPUs, as Ray counts them."""
    free_cpus: int
    """Those that nobody has taken."""
    gpus: int = 0
    """Its GPUs."""
    free_gpus: int = 0
    """Those that nobody has taken."""
    kept: int = 0
    """Threads of a learner for which it is kept (Ray's resource `learner`); 0 for none."""
    is_here: bool = False
    """Whether it is the driver's."""
    node_id: str | None = None
    """Ray's id of it; None without a cluster."""

    def __str__(self) -> str:
        gpus = f" and {self.free_gpus} of {self.gpus} GPUs" if self.gpus else ""
        return f"{self.name} has {self.free_cpus} of {self.cpus} CPUs{gpus} free"


def this_machine() -> Node:
    """The cores that this process may use."""
    cores = len(os.sched_getaffinity(0))
    return Node(socket.gethostname(), cores, cores, is_here=True)


def listed(nodes: Sequence[Node]) -> str:
    """What each node has, those with most CPUs free first, as a clause for people."""
    nodes = sorted(nodes, key=lambda node: (-node.free_cpus, node.name))
    more = [f"{len(nodes) - NODES_LISTED} more have no more"] if len(nodes) > NODES_LISTED else []
    return ", ".join([*map(str, nodes[:NODES_LISTED]), *more]) or "no node has any CPU"


@dataclass(frozen=True)
class Split:
    """How CPUs are shared between the solvers and the learner."""

    nodes: tuple[Node, ...]
    """All nodes, or this machine alone."""
    workers: int
    """Solver workers at the start."""
    most: int
    """Solver workers at the most."""
    learner: Node
    """Where the learner is to be."""
    learner_cpus: int
    """CPUs that it asks for there."""
    needs_gpu: bool
    """Whether it asks for a GPU too."""

    @classmethod
    def of(cls, config: Config, nodes: Sequence[Node], *, has_learner: bool = True) -> Split:
        """The split for a configuration.

        Args:
            config: the configuration. Workers that are "auto" take all CPUs except one, each as many of a node as it
                has ranks.
            nodes: the nodes of the cluster that the run joins; without one, this machine.
            has_learner: whether anything is trained, perhaps on a GPU of the cluster.

        Returns:
            The split. The learner gets what the largest number of solvers leaves of its node, and one CPU at least.

        Raises:
            PenstockError: no node of the cluster has what the learner asks for.
        """
        device = config.training.device
        with_cpus = [node for node in nodes if node.cpus]
        with_cpus = [node for node in with_cpus if node.kept] or with_cpus
        with_gpus = [node for node in with_cpus if node.gpus]
        is_joined = config.cluster.address is not None
        needs_gpu = has_learner and is_joined and (device == "cuda" or (device == "auto" and bool(with_gpus)))
        if is_joined and has_learner and device.startswith("cuda:"):
            raise PenstockError(f"training.device: {device!r}: in a cluster Ray chooses the GPU: give cuda")
        candidates = with_gpus if needs_gpu else with_cpus
        if not candidates:
            asked = "1 CPU and 1 GPU (training.device: cuda)" if needs_gpu else "1 CPU"
            raise PenstockError(f"the learner asks for {asked}, which no node of the cluster has: {listed(nodes)}")
        learner = max(candidates, key=lambda node: (node.free_gpus > 0, node.free_cpus, node.is_here))
        ranks, workers, learners = config.solver.ranks, config.solver.workers, config.training.ranks
        elsewhere = sum(node.cpus // ranks for node in nodes if node is not learner)
        if workers == "auto":
            least = most = max(learners, elsewhere + (learner.cpus - 1) // ranks)
        elif isinstance(workers, Steered):
            least, most = workers.min, workers.max
            if has_learner and learners > 1:
                raise PenstockError(f"solver.workers: with training.ranks {learners} their number is fixed: give it")
        else:
            least = most = workers
            if has_learner and workers < learners:
                raise PenstockError(
                    f"solver.workers: {workers} can't serve {learners} learner ranks (training.ranks): give {learners}"
                )
        left = learner.cpus - ranks * max(0, most - elsewhere)
        learner_cpus = max(1, min(left, learner.free_cpus))
        return cls(tuple(nodes), least, most, learner, learner_cpus, needs_gpu)

    @property
    def learner_threads(self) -> int:
        """Threads of the learner: one per CPU, but two where its node has two."""
        if self.learner.kept:
            return self.learner.kept
        # Solvers wait whenever the stream is ahead, and a learner with a single thread would then leave a core idle.
        return min(self.learner.cpus, max(2, self.learner_cpus))

    def learner_part(self, device: str, num_ranks: int) -> dict[str, str | int]:
        """What the learner has, for the record: device, cores, GPUs.

        Args:
            device: name of its device.
            num_ranks: number of its ranks, each on one device.
        """
        on_gpus = not device.startswith("the CPU")
        cores = self.learner.kept or self.learner_cpus
        return {"device": device, "cores": cores, "gpus": num_ranks if on_gpus else 0}

    def __str__(self) -> str:
        if self.learner.node_id is None:
            return f"{self.learner.cpus} cores"
        plural = "s" if len(self.nodes) > 1 else ""
        return f"{sum(node.cpus for node in self.nodes)} CPUs of {len(self.nodes)} node{plural}"

    def require_cores(self, solver: SolverSection, num: int | None = None) -> None:
        """Check that every MPI rank can have a core of this machine.

        They wait for each other at full speed.

        Args:
            solver: the section `solver` of the configuration.
            num: number of workers; None for the largest one.

        Raises:
            PenstockError: there are too few.
        """
        num = self.most if num is None else num
        cores, num_ranks = self.learner.cpus, num * solver.ranks
        if solver.ranks > 1 and num_ranks > cores:
            raise PenstockError(
                f"solver.ranks = {solver.ranks} with solver.workers = {num} takes {num_ranks} cores, and this "
                f"machine has {cores}: lower one of them"
            )


def split_here(config: Config) -> Split:
    """The split of this machine, for a run that joins no cluster."""
    return Split.of(config, [this_machine()])


def solves_here(config: Config) -> bool:
    """Whether a command that only solves does so in its own process.

    So it does with a single worker, no cluster to join, and no bound that another process has to watch.
    """
    is_watched = config.solver.timeout_s != "auto" or config.solver.memory_mb != "auto"
    return config.cluster.address is None and not is_watched and split_here(config).most == 1
