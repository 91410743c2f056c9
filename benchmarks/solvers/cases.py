"""The cases: SKR's systems, Darcy flow, constant matrices, and slow changes."""

from __future__ import annotations

import numpy as np

from benchmarks.solvers.skr import skr
from penstock.solvers.problems.nonlinear.bratu import Bratu
from penstock.solvers.problems.nonlinear.nonlinear_diffusion import NonlinearDiffusion
from penstock.solvers.problems.steady.convection_diffusion import ConvectionDiffusion
from penstock.solvers.problems.steady.darcy import Darcy
from penstock.solvers.problems.steady.helmholtz import Helmholtz
from penstock.solvers.problems.steady.poisson import Poisson
from penstock.solvers.problems.transient.drifting_diffusion import DriftingDiffusion
from penstock.solvers.problems.transient.heat import Heat
from penstock.solvers.referee.case import Case

MEDIA = {
    "12/3": {},
    "log-normal": {"medium": "log_normal"},
    "contrast 1e4": {"above": 1.0, "below": 1e-4},
    "3D 12/3": {"dimension": 3},
}
WAVES = {20.0: (32, 64), 40.0: (64, 96), 60.0: (96, 128)}  # the smaller ones have 10 points per wavelength
LONG = 200  # steps or levels of a sequence, more than any comparison takes


def cases() -> list[Case]:
    """All cases, in the order of the tables."""
    return [
        *(skr(n, mended=mended) for mended in (False, True) for n in (98, 198)),
        *(darcy("12/3", n) for n in (100, 256, 421)),
        *(darcy("log-normal", n) for n in (100, 256, 421)),
        *(darcy("contrast 1e4", n) for n in (100, 256)),
        *(darcy("3D 12/3", n) for n in (32, 64)),
        *(poisson(n) for n in (128, 264)),
        *(heat(n) for n in (128, 264)),
        *(convection(peclet, n) for peclet in (1e2, 1e3, 1e4) for n in (64, 128)),
        *(helmholtz(k, n) for k, sizes in WAVES.items() for n in sizes),
        *(newton(n) for n in (100, 200)),
        *(continuation(n) for n in (100, 200)),
        *(transient(n) for n in (100, 200)),
    ]


def darcy(medium: str, resolution: int) -> Case:
    """A case of Darcy flow on the square or the cube.

    The square's unknowns include the vertices of the boundary, the cube's do not.
    """
    problem = Darcy(resolution=resolution, **MEDIA[medium])
    num_unknowns = (resolution + 1) ** 2 if problem.dimension == 2 else (resolution - 1) ** 3
    cells = " x ".join([str(resolution)] * problem.dimension)
    return Case(f"B {medium} {num_unknowns}", f"Darcy, {medium}, P1, {cells} cells", problem, num_unknowns)


def poisson(resolution: int) -> Case:
    """A case of Poisson's equation.

    It has more systems than the 30 that span all right-hand sides.
    """
    num_unknowns = (resolution - 1) ** 2
    title = f"Poisson, constant matrix, 30 parameters in b, {resolution} x {resolution} squares"
    return Case(
        f"C Poisson {num_unknowns}",
        title,
        Poisson(resolution=resolution),
        num_unknowns,
        num_systems=100,
        design="poisson",
    )


def heat(resolution: int) -> Case:
    num_unknowns = (resolution - 1) ** 2
    title = f"heat equation, implicit steps, constant matrix, {resolution} x {resolution}"
    problem = Heat(resolution=resolution, num_steps=LONG)
    return Case(f"C heat {num_unknowns}", title, problem, num_unknowns, is_sequence=True)


def convection(peclet: float, resolution: int) -> Case:
    num_unknowns = (resolution - 1) ** 2
    name = f"D convection Pe {peclet:.0e} {num_unknowns}".replace("e+0", "e")
    title = f"convection-diffusion, SUPG P1, {resolution} x {resolution}, Péclet {peclet:g}"
    return Case(
        name, title, ConvectionDiffusion(resolution=resolution, peclet=peclet), num_unknowns, design="convection"
    )


def helmholtz(wavenumber: float, resolution: int) -> Case:
    num_unknowns = 2 * (resolution + 1) ** 2
    points = 2 * np.pi * resolution / wavenumber
    title = f"Helmholtz, impedance boundary, k = {wavenumber:g}, {points:.1f} points per wavelength"
    problem = Helmholtz(resolution=resolution, wavenumber=wavenumber)
    return Case(f"D Helmholtz k {wavenumber:g} {num_unknowns}", title, problem, num_unknowns, design="helmholtz")


def newton(resolution: int) -> Case:
    title = "Newton's method for -∇·((1 + u²) ∇u) = load · s, load steps"
    problem = NonlinearDiffusion(resolution=resolution, num_levels=LONG)
    return Case(f"D Newton {resolution**2}", title, problem, resolution**2, is_sequence=True, design="newton source")


def continuation(resolution: int) -> Case:
    title = "continuation of -Δu = λ exp(u) towards its fold"
    problem = Bratu(resolution=resolution, num_levels=LONG)
    return Case(f"D continuation {resolution**2}", title, problem, resolution**2, is_sequence=True)


def transient(resolution: int) -> Case:
    title = "implicit Euler for ∂u/∂t = ∇·(a(x, t) ∇u) + 1, a drifting"
    problem = DriftingDiffusion(resolution=resolution, num_steps=LONG)
    return Case(f"D transient {resolution**2}", title, problem, resolution**2, is_sequence=True)
