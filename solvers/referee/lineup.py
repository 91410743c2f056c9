"""Who competes: loops of a PETSc user, our strategies, and SKR as published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from penstock.solvers.linear.auto.calibration import can_factor
from penstock.solvers.linear.auto.candidates import candidates
from penstock.solvers.linear.direct.constant import Constant
from penstock.solvers.linear.direct.lagged import Lagged
from penstock.solvers.linear.iterative.cg import CG
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.linear.iterative.petsc import Krylov
from penstock.solvers.linear.strategy import Strategy
from penstock.solvers.problem import LinearSystem
from penstock.solvers.referee.arms import Arm, AutoArm, KeptKSP, Role, StrategyArm, Structure

# GCRO-DR that has not converged by then never does: SKR's systems take it 150 iterations.
MAX_GCRODR_ITERATIONS = 2_000
# Multigrid that has not converged by then never does: a Helmholtz system would take minutes.
MAX_GAMG_ITERATIONS = 500
# Unknowns above which PETSc's factorisation is left out, because 64^3 take it a minute and 3 GB. MUMPS, which takes
# half a minute there, is run once.
FACTOR_LIMIT = 200_000


def lineup(
    structure: Structure, system: LinearSystem, target: Mapping[str, Any], others: Mapping[str, Callable[[], Strategy]]
) -> list[Arm]:
    """All arms that compete on a configuration's systems.

    Args:
        structure: the structure of the systems.
        system: the first of them.
        target: `rtol`, or `accuracy` and `of_deviation`, of `auto`.
        others: further strategies, by title: makes one.
    """
    return [
        *user_arms(structure),
        *own_arms(structure, system),
        *skr_arms(structure),
        AutoArm(**target),
        *(StrategyArm(title, Role.OURS, make) for title, make in others.items()),
    ]


def skr_arms(structure: Structure) -> tuple[Arm, Arm]:
    """Sorting Krylov Recycling (SKR), and the same with nothing recycled.

    It is as published, except that it stops on true residuals.
    """
    pc = "icc" if structure.is_spd else "ilu"
    title = f"GCRO-DR(40, 20) + {pc.upper()}"
    options = {"pc": pc, "max_iterations": MAX_GCRODR_ITERATIONS}
    is_sorted = not structure.is_sequence
    how, reset = "sorted" if is_sorted else "in order", f"{title}, reset"
    skr = StrategyArm(f"{title}, {how}", Role.SKR, lambda: GCRODR(**options), is_sorted=is_sorted, control=reset)
    return skr, StrategyArm(reset, Role.BASELINE, lambda: GCRODR(**options, recycle=False), is_sorted=is_sorted)


def user_arms(structure: Structure) -> list[Arm]:
    """The loops that a good user of PETSc would write.

    Reusing GAMG's interpolation is worth 3 to 8 % of CG + GAMG on Darcy 12/3; in three dimensions, Richardson with SOR
    for a smoother instead of Chebyshev with Jacobi another 8 to 9 %.
    """
    ksp, name = ("cg", "CG") if structure.is_spd else ("gmres", "GMRES")
    pc, factorisation = ("cholesky", "Cholesky") if structure.is_spd else ("lu", "LU")
    gamg = {"pc_gamg_reuse_interpolation": "true"}
    if structure.is_spatial:
        gamg |= {"mg_levels_ksp_type": "richardson", "mg_levels_pc_type": "sor"}
    limit = {"max_iterations": MAX_GAMG_ITERATIONS}
    arms: list[Arm] = [KeptKSP(f"user: {name} + GAMG", Role.USER, ksp=ksp, pc="gamg", options=gamg, **limit)]
    is_large = structure.num_unknowns > FACTOR_LIMIT
    for knows_constant in (False, True) if structure.has_constant_matrix else (False,):
        for package, package_name in (("petsc", "PETSc"), ("mumps", "MUMPS")):
            if package == "petsc" and is_large:
                continue
            title = f"user: {package_name} {factorisation}{', factor kept' if knows_constant else ''}"
            kept = {
                "package": package,
                "knows_constant": knows_constant,
                "max_systems": 1 if is_large and structure.is_spatial else None,
            }
            arms.append(KeptKSP(title, Role.USER, ksp="preonly", pc=pc, **kept))
    return arms


def own_arms(structure: Structure, system: LinearSystem) -> list[Arm]:
    """The strategies that `auto` chooses from or leaves out, except GCRO-DR.

    Recycling ones stand beside their controls. For GCRO-DR see `skr_arms`.
    """
    known = [candidate for candidate in candidates(system) if not candidate.label.startswith("gcrodr")]
    strategies = {candidate.label: candidate.make for candidate in known}
    num_cold = {candidate.label: candidate.warm_up for candidate in known}
    if structure.has_constant_matrix:
        strategies["constant"] = Constant
    if structure.is_spd:
        strategies |= {"cg + icc": lambda: CG(pc="icc"), "cg + icc, recycling": lambda: CG(pc="icc", k=20)}
        num_cold["cg + icc, recycling"] = 6
        if system.grid is not None:
            strategies["cg + fast_poisson"] = lambda: CG(pc="fast_poisson")
    else:
        limited = {"ksp": "gmres", "pc": "gamg", "max_iterations": MAX_GAMG_ITERATIONS}
        strategies["gmres + gamg"] = lambda: Krylov(**limited)
    if can_factor(system):
        strategies["lagged"] = Lagged
        num_cold["lagged"] = 3
    controls = {"cg + icc, recycling": "cg + icc"}
    return [
        StrategyArm(
            title,
            Role.OURS,
            make,
            is_sorted=title == "lagged" and not structure.is_sequence,
            control=controls.get(title),
            num_cold=num_cold.get(title, 1),
        )
        for title, make in strategies.items()
    ]
