"""Remarks on the first samples: an unstable scheme is found, decay and starts from rest are not taken for one."""

import numpy as np
import pytest

from penstock.geometry import Grid
from penstock.layout import FieldSpec, Layout
from penstock.learner.stream.remarks import Growth

LAYOUT = Layout((), (FieldSpec(name="u", on=Grid((4,)), components=2), FieldSpec(name="lift")))
STEPS = np.arange(10)


def remarks(course, steps=STEPS):
    """Of two simulations in chunks of 3 samples, u[1] = -course at one point, all else 1."""
    growth, rows = Growth(LAYOUT), np.tile(steps, 2)
    fields, scalars = np.ones((len(rows), 2, 4), np.float32), np.ones((len(rows), 1), np.float32)
    fields[:, 1, 2] = -np.tile(course, 2)
    for at in np.split(np.arange(len(rows)), range(3, len(rows), 3)):
        growth.update({"targets": fields[at], "target_scalars": scalars[at]}, rows[at])
    return growth.remarks()


def test_an_explicit_scheme_beyond_its_stability_limit_is_said():
    """u' = -100 u by Euler's method with dt = 1: u is multiplied by -99 at each step."""
    assert remarks((-99.0) ** (1 + STEPS)) == [
        "output 'u[1]' reaches 99 at step 0, 9.4e+11 at step 5 and 9e+19 at step 9: if the scheme is unstable, take "
        "smaller steps in time"
    ]


@pytest.mark.parametrize(
    "course",
    [99.0 ** -(1.0 + STEPS), np.where(STEPS < 2, 1e-12, 5.0), 2.0**STEPS, 1e9 * np.ones(10), np.zeros(10)],
    ids=["decay", "from rest", "a slow instability", "large", "nothing"],
)
def test_what_stable_schemes_do_is_not(course):
    assert remarks(np.maximum(course, 0)) == []


def test_two_steps_say_nothing():
    assert remarks(np.array([1e-3, 1e9]), np.arange(2)) == []
