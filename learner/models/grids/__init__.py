"""Neural operators whose fields sit on one grid of one to three axes, by name."""

from penstock.learner.models.grids.attention.codano import CoDANO
from penstock.learner.models.grids.attention.cvit import CViT
from penstock.learner.models.grids.attention.galerkin import Galerkin
from penstock.learner.models.grids.convolutional.ditto import DiTTO
from penstock.learner.models.grids.convolutional.lsm import LSM
from penstock.learner.models.grids.convolutional.mgno import MgNO
from penstock.learner.models.grids.convolutional.unet import UNet
from penstock.learner.models.grids.fourier.ffno import FFNO
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.models.grids.fourier.localno import LocalNO
from penstock.learner.models.grids.fourier.t1 import T1
from penstock.learner.models.grids.fourier.uno import UNO

ON_GRIDS: dict[str, type] = {
    "codano": CoDANO,
    "cvit": CViT,
    "ditto": DiTTO,
    "ffno": FFNO,
    "fno": FNO,
    "galerkin": Galerkin,
    "localno": LocalNO,
    "lsm": LSM,
    "mgno": MgNO,
    "t1": T1,
    "unet": UNet,
    "uno": UNO,
}
