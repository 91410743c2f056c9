"""Operators that go through a regular grid inside the model."""

from penstock.learner.models.points.latent.gaot import GAOT
from penstock.learner.models.points.latent.geo_fno import GeoFNO
from penstock.learner.models.points.latent.gino import GINO

LATENT: dict[str, type] = {"gaot": GAOT, "geo_fno": GeoFNO, "gino": GINO}
