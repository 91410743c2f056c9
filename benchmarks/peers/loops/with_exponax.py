"""Loops of exponax's steppers: ETDRK4 in double precision, compiled as a whole by JAX."""

from __future__ import annotations

from collections.abc import Callable

import exponax
import jax
import jax.numpy as jnp
import numpy as np

from penstock.solvers.problem import Parameters, Problem

jax.config.update("jax_enable_x64", True)
NAME = f"exponax {exponax.__version__}"


class Rollout:
    """A stepper over all frames of a draw, in one compiled function.

    Args:
        problem: ours, for its options.
        steps: number of steps per frame.
        stepper: of exponax, for one step.
        name: the parameter that a simulation begins with.
    """

    def __init__(self, problem: Problem, steps: int, stepper: exponax.BaseStepper, *, name: str = "initial"):
        self._dropped = getattr(problem, "warm_up", 0)
        num_frames = problem.num_steps + self._dropped + getattr(problem, "history", 1) - 1
        self._name, dimension, n = name, stepper.num_spatial_dims, stepper.num_points
        axes = tuple(range(-dimension, 0))

        def frame(modes: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            modes, _ = jax.lax.scan(lambda v, _: (stepper.step_fourier(v), None), modes, length=steps)
            return modes, jnp.fft.irfftn(modes, s=(n,) * dimension, axes=axes)

        self._run: Callable = jax.jit(lambda u: jax.lax.scan(frame, jnp.fft.rfftn(u, axes=axes), length=num_frames)[1])
        self._num_channels = stepper.num_channels

    def __call__(self, parameters: Parameters) -> np.ndarray:
        initial = parameters[self._name]
        frames = np.asarray(self._run(initial if self._num_channels > 1 else initial[None]))[self._dropped :]
        return frames if self._num_channels > 1 else frames[:, 0]


def burgers(problem: Problem, steps: int) -> Rollout:
    stepper = exponax.stepper.Burgers(
        *(1, 1.0, problem.resolution, problem.interval / steps),
        diffusivity=problem.viscosity,
        conservative=True,
        order=4,
    )
    return Rollout(problem, steps, stepper)


def korteweg_de_vries(problem: Problem, steps: int) -> Rollout:
    stepper = exponax.stepper.KortewegDeVries(
        *(1, 50.0, problem.resolution, problem.interval / steps),
        convection_scale=6.0,
        hyper_diffusivity=problem.hyperviscosity,
        conservative=True,
        order=4,
    )
    return Rollout(problem, steps, stepper)


def kuramoto_sivashinsky(problem: Problem, steps: int) -> Rollout:
    stepper = exponax.stepper.KuramotoSivashinskyConservative(
        1, 60.0, problem.resolution, problem.interval / steps, order=4
    )
    return Rollout(problem, steps, stepper)


def gray_scott(problem: Problem, steps: int) -> Rollout:
    stepper = exponax.stepper.reaction.GrayScott(
        *(2, 2.0, problem.resolution, problem.interval / steps),
        feed_rate=problem.feed,
        kill_rate=problem.kill,
        dealiasing_fraction=1.0,  # as ours, which filters nothing
        order=4,
    )
    return Rollout(problem, steps, stepper)


def navier_stokes(problem: Problem, steps: int) -> Rollout:
    return Rollout(problem, steps, ForcedVorticity(problem, steps), name="vorticity")


class ForcedVorticity(exponax.stepper.NavierStokesVorticity):
    """exponax's vorticity equation with the force of the published set."""

    def __init__(self, problem: Problem, steps: int):
        super().__init__(
            *(2, 1.0, problem.resolution, problem.interval / steps),
            diffusivity=problem.viscosity,
            vorticity_convection_scale=-1.0,  # its velocity is ours for the vorticity -w
            order=4,
        )

    def _build_nonlinear_fun(self, derivative_operator: jax.Array) -> exponax.nonlin_fun.BaseNonlinearFun:
        return _Forced(
            *(self.num_spatial_dims, self.num_points),
            convection_scale=self.vorticity_convection_scale,
            derivative_operator=derivative_operator,
            dealiasing_fraction=self.dealiasing_fraction,
        )


class _Forced(exponax.nonlin_fun.VorticityConvection2d):
    force: jax.Array

    def __init__(self, num_spatial_dims: int, num_points: int, **options):
        super().__init__(num_spatial_dims, num_points, **options)
        x = jnp.arange(num_points) / num_points
        phase = 2 * jnp.pi * (x[:, None] + x)
        self.force = jnp.fft.rfftn(0.1 * (jnp.sin(phase) + jnp.cos(phase)))

    def __call__(self, u_hat: jax.Array) -> jax.Array:
        return super().__call__(u_hat) + self.force
