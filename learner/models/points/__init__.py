"""The models at points, by name: for meshes, points that vary, and grids."""

from penstock.learner.models.points.attention import ATTENTION
from penstock.learner.models.points.graphs import GRAPHS
from penstock.learner.models.points.latent import LATENT
from penstock.learner.models.points.pooled import POOLED

AT_POINTS: dict[str, type] = {**ATTENTION, **GRAPHS, **LATENT, **POOLED}
