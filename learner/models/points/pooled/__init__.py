"""Operators that bring their inputs to a point through one vector."""

from penstock.learner.models.points.pooled.branch_trunk import BranchTrunk
from penstock.learner.models.points.pooled.deeponet import DeepONet
from penstock.learner.models.points.pooled.multi_onet import MultiONet
from penstock.learner.models.points.pooled.pod_deeponet import PODDeepONet
from penstock.learner.models.points.pooled.pointnet import PointNet

POOLED: dict[str, type] = {
    "branch_trunk": BranchTrunk,
    "deeponet": DeepONet,
    "multi_onet": MultiONet,
    "pod_deeponet": PODDeepONet,
    "pointnet": PointNet,
}
