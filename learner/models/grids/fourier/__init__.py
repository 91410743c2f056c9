"""Neural operators on grids by truncated transforms."""

from penstock.learner.models.grids.fourier.ffno import FFNO
from penstock.learner.models.grids.fourier.fno import FNO
from penstock.learner.models.grids.fourier.localno import LocalNO
from penstock.learner.models.grids.fourier.st_fno import STFNO
from penstock.learner.models.grids.fourier.t1 import T1
from penstock.learner.models.grids.fourier.uno import UNO

FOURIER: dict[str, type] = {
    "ffno": FFNO,
    "fno": FNO,
    "localno": LocalNO,
    "st_fno": STFNO,
    "t1": T1,
    "uno": UNO,
}
