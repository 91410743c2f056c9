"""Operators by messages along the edges of graphs."""

from penstock.learner.models.points.graphs.mesh_graph_net import MeshGraphNet
from penstock.learner.models.points.graphs.mp_pde import MPPDE
from penstock.learner.models.points.graphs.rigno import RIGNO

GRAPHS: dict[str, type] = {"mesh_graph_net": MeshGraphNet, "mp_pde": MPPDE, "rigno": RIGNO}
