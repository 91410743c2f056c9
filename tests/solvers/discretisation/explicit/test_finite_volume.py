"""Reconstruction, the Riemann solver and the steps, against advection, whose solution is a shift."""

import numpy as np
import pytest

from penstock.solvers.discretisation.explicit.finite_volume import FiniteVolumes, face_states, hll, limited, march


def upwind(below, above, axis):
    """The flux of advection with velocity 1 along each axis."""
    return below


def advected(values, *, end, courant=0.5):
    """Values on [0, 1) after some time."""
    n = values.shape[-1]
    volumes = FiniteVolumes(1 / n, upwind, beyond="wrap")
    _, state = march(values, volumes.step, interval=end, num_frames=2, largest_step=lambda state: courant / n)
    return state


def test_linear_functions_are_reconstructed_exactly():
    below, above = face_states(3.0 * np.arange(8.0) + 1.0)
    np.testing.assert_allclose(below, 3.0 * np.arange(1.5, 6.0) + 1.0, rtol=1e-14)
    np.testing.assert_allclose(above, below, rtol=1e-14)


@pytest.mark.parametrize(
    ("before", "after", "slope"), [(1.0, 3.0, 2.0), (1.0, 9.0, 2.0), (-9.0, -1.0, -2.0), (-1.0, 2.0, 0.0)]
)
def test_slopes_are_those_of_van_leer(before, after, slope):
    """Monotonised central: the smallest of twice each difference and their mean, 0 at extremes (van Leer, 1977)."""
    assert limited(np.array([before]), np.array([after])) == slope / 2


def test_smooth_functions_move_with_order_two():
    errors = []
    for n in (64, 128, 256):
        x = (np.arange(n) + 0.5) / n
        state = advected(np.sin(2 * np.pi * x)[None], end=1.0)
        errors.append(np.abs(state[0] - np.sin(2 * np.pi * x)).mean())
    assert np.log2(np.divide(errors[:-1], errors[1:])) == pytest.approx(2.0, abs=0.3)


def test_steps_move_without_new_extremes_and_nothing_is_lost():
    values = np.where(np.abs((np.arange(100) + 0.5) / 100 - 0.3) < 0.1, 1.0, 0.0)[None]
    state = advected(values, end=0.5)
    assert state.min() > -1e-14 and state.max() < 1 + 1e-14
    assert state.sum() == pytest.approx(values.sum(), rel=1e-13)
    assert np.abs(state[0] - np.roll(values[0], 50)).mean() < 0.04


def test_two_dimensions_move_along_the_diagonal():
    errors = []
    for n in (24, 48):
        x, y = np.meshgrid(*2 * [(np.arange(n) + 0.5) / n], indexing="ij")
        state = advected(np.exp(np.cos(2 * np.pi * x) + np.sin(2 * np.pi * y))[None], end=0.25, courant=0.4)
        errors.append(np.abs(state[0] - np.exp(np.sin(2 * np.pi * x) - np.cos(2 * np.pi * y))).mean())
    assert errors[1] < min(errors[0] / 3, 0.03)


def test_the_flux_between_equal_states_is_theirs_and_fast_flow_comes_from_upwind():
    state, flux = np.array([[2.0]]), np.array([[5.0]])
    other = np.array([[3.0]])
    assert hll((state, state), (flux, flux), np.array([-1.0]), np.array([2.0])) == 5.0
    assert hll((state, other), (flux, flux + 1), np.array([1.0]), np.array([2.0])) == 5.0
    assert hll((state, other), (flux, flux + 1), np.array([-2.0]), np.array([-1.0])) == 6.0


def test_beyond_the_boundary_is_the_outermost_cell():
    """A ramp leaves on the right; on the left its lowest value comes in."""
    n = 50
    volumes = FiniteVolumes(1 / n, upwind, beyond="clip")
    ramp = (np.arange(n) + 0.5)[None] / n
    *_, state = march(ramp, volumes.step, interval=0.6, num_frames=3, largest_step=lambda state: 0.4 / n)
    np.testing.assert_allclose(state, ramp[0, 0], atol=0.02)


def test_intervals_are_cut_into_steps_and_a_blow_up_is_said():
    lengths = []

    def flow(state, step):
        lengths.append(step)
        return state * np.inf if len(lengths) > 6 else state

    frames = march(np.ones(1), flow, interval=1.0, num_frames=4, largest_step=lambda state: 0.4 / state[0])
    assert len([next(frames) for _ in range(3)]) == 3
    np.testing.assert_allclose(lengths, 1 / 3)
    with pytest.raises(ArithmeticError, match=r"not finite at t = 2\.33333"):
        next(frames)
