"""Neural operators whose fields sit on one grid of one to three axes, by name."""

from penstock.learner.models.grids.attention import ATTENTION
from penstock.learner.models.grids.convolutional import CONVOLUTIONAL
from penstock.learner.models.grids.fourier import FOURIER
from penstock.learner.models.grids.mg_tfno import MGTFNO

ON_GRIDS: dict[str, type] = {**ATTENTION, **CONVOLUTIONAL, **FOURIER, "mg_tfno": MGTFNO}
