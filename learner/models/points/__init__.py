"""The models at points, by name: for meshes, points that vary, and grids."""

from penstock.learner.models.points.branch_trunk import BranchTrunk
from penstock.learner.models.points.deeponet import DeepONet
from penstock.learner.models.points.gino import GINO
from penstock.learner.models.points.gnot import GNOT
from penstock.learner.models.points.mesh_graph_net import MeshGraphNet
from penstock.learner.models.points.pointnet import PointNet
from penstock.learner.models.points.transolver import Transolver

AT_POINTS: dict[str, type] = {
    "branch_trunk": BranchTrunk,
    "deeponet": DeepONet,
    "gino": GINO,
    "gnot": GNOT,
    "mesh_graph_net": MeshGraphNet,
    "pointnet": PointNet,
    "transolver": Transolver,
}
