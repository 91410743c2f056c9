"""Operators whose points attend."""

from penstock.learner.models.points.attention.gnot import GNOT
from penstock.learner.models.points.attention.transolver import Transolver
from penstock.learner.models.points.attention.upt import UPT

ATTENTION: dict[str, type] = {"gnot": GNOT, "transolver": Transolver, "upt": UPT}
