"""The keys of `penstock launch kuberay`: the pods of a RayJob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from penstock.orchestrator.config.sections import Section

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$")]
Label = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class PodSection(Section):
    """What a pod asks for; it is given that, and no more."""

    cpus: int = Field(4, gt=0)
    """CPUs of a pod."""
    memory: Quantity = "16Gi"
    """Memory of a pod, as Kubernetes writes it: `16Gi`."""
    node_selector: Mapping[str, str] = {}
    """Labels of the nodes on which such pods may run."""
    tolerations: Sequence[Mapping[str, Any]] = []
    """Tolerations of such pods, as Kubernetes writes them."""


class LearnerPodSection(PodSection):
    """The pod of the learner."""

    gpus: int = Field(0, ge=0)
    """NVIDIA GPUs of the learner's pod."""


class SolverPodsSection(PodSection):
    """The pods of the solvers.

    Each CPU takes a solver, or an MPI rank of one.
    """

    pods: int = Field(1, gt=0)
    """Pods of solvers at the start."""
    max_pods: int | None = Field(None, gt=0)
    """Pods that Ray's autoscaler may go up to when solvers wait for CPUs. Absent, their number is fixed."""

    @model_validator(mode="after")
    def _bounds_are_ordered(self):
        if self.max_pods is not None and self.max_pods < self.pods:
            raise ValueError(f"max_pods = {self.max_pods} is below pods = {self.pods}")
        return self


class KubeRaySection(Section):
    """A RayJob, which a Kubernetes cluster with KubeRay runs."""

    image: str | None = None
    """Image of all pods, built from deploy/Containerfile: [Kubernetes](../clusters.md#kubernetes). Needed."""
    namespace: Label = "default"
    """Namespace of the RayJob."""
    claim: str | None = None
    """PersistentVolumeClaim that has the run folder. Needed."""
    mount: str | None = Field(None, pattern=r"^/.")
    """Path at which the pods see the claim, and this machine too. Needed."""
    solvers: SolverPodsSection = SolverPodsSection()
    learner: LearnerPodSection = LearnerPodSection()
    retries: int = Field(3, ge=0)
    """Times that a run which failed or lost its head is resumed in new pods."""
