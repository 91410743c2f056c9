"""The models at points, by name: for meshes, points that vary, and grids."""

from penstock.learner.models.points.attention.gnot import GNOT
from penstock.learner.models.points.attention.transolver import Transolver
from penstock.learner.models.points.attention.upt import UPT
from penstock.learner.models.points.graphs.mesh_graph_net import MeshGraphNet
from penstock.learner.models.points.graphs.rigno import RIGNO
from penstock.learner.models.points.latent.gaot import GAOT
from penstock.learner.models.points.latent.geo_fno import GeoFNO
from penstock.learner.models.points.latent.gino import GINO
from penstock.learner.models.points.pooled.branch_trunk import BranchTrunk
from penstock.learner.models.points.pooled.deeponet import DeepONet
from penstock.learner.models.points.pooled.multi_onet import MultiONet
from penstock.learner.models.points.pooled.pod_deeponet import PODDeepONet
from penstock.learner.models.points.pooled.pointnet import PointNet

AT_POINTS: dict[str, type] = {
    "branch_trunk": BranchTrunk,
    "deeponet": DeepONet,
    "gaot": GAOT,
    "geo_fno": GeoFNO,
    "gino": GINO,
    "gnot": GNOT,
    "mesh_graph_net": MeshGraphNet,
    "multi_onet": MultiONet,
    "pod_deeponet": PODDeepONet,
    "pointnet": PointNet,
    "rigno": RIGNO,
    "transolver": Transolver,
    "upt": UPT,
}
