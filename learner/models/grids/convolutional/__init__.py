"""Neural operators on grids by convolutions whose kernels reach a number of cells."""

from penstock.learner.models.grids.convolutional.ditto import DiTTO
from penstock.learner.models.grids.convolutional.lsm import LSM
from penstock.learner.models.grids.convolutional.mgno import MgNO
from penstock.learner.models.grids.convolutional.unet import UNet

CONVOLUTIONAL: dict[str, type] = {
    "ditto": DiTTO,
    "lsm": LSM,
    "mgno": MgNO,
    "unet": UNet,
}
