"""Statistics of errors, by NumPy."""

import numpy as np
import pytest


def statistics(errors):
    return {
        "mean": pytest.approx(np.mean(errors), rel=1e-5),
        "median": pytest.approx(np.quantile(errors, 0.5), rel=1e-5),
        "p99": pytest.approx(np.quantile(errors, 0.99), rel=1e-5),
        "max": pytest.approx(np.max(errors), rel=1e-5),
    }
