"""Neural operators on grids by attention."""

from penstock.learner.models.grids.attention.codano import CoDANO
from penstock.learner.models.grids.attention.cvit import CViT
from penstock.learner.models.grids.attention.galerkin import Galerkin

ATTENTION: dict[str, type] = {
    "codano": CoDANO,
    "cvit": CViT,
    "galerkin": Galerkin,
}
