"""The arms that SKR compares, its controls, and CG."""

from __future__ import annotations

from benchmarks.solvers.skr import PublishedGCRODR
from penstock.solvers.linear.iterative.gcrodr import GCRODR
from penstock.solvers.referee.arms import MAX_ITERATIONS, Arm, KeptKSP, Role, StrategyArm, Structure
from penstock.solvers.referee.lineup import MAX_GCRODR_ITERATIONS, skr_arms

# Iterations x unknowns x restart of GMRES: half a minute, after which the arm leaves the case anyway.
MAX_WORK = 2e10
# Unknowns up to which GCRO-DR is run unsorted and preconditioned from the left, too.
VARIANTS_LIMIT = 100_000


def published_arms(structure: Structure) -> list[Arm]:
    """The arms that SKR compares, its controls, and CG."""
    pc = "icc" if structure.is_spd else "ilu"
    skr, reset_arm = skr_arms(structure)
    title = reset_arm.title.removesuffix(", reset")
    options = {"pc": pc, "max_iterations": MAX_GCRODR_ITERATIONS}
    is_sorted = not structure.is_sequence
    arms: list[Arm] = [
        KeptKSP(
            f"GMRES({restart}) + {pc.upper()}",
            Role.BASELINE,
            ksp="gmres",
            pc=pc,
            options={"ksp_gmres_restart": str(restart)},
            max_iterations=min(MAX_ITERATIONS, int(MAX_WORK / (structure.num_unknowns * restart))),
        )
        for restart in (40, 200)
    ]
    if structure.is_spd:
        arms.append(KeptKSP("CG + ICC", Role.BASELINE, ksp="cg", pc=pc))
    arms.append(skr)
    if structure.num_unknowns <= VARIANTS_LIMIT:
        if is_sorted:
            arms.append(
                StrategyArm(f"{title}, unsorted", Role.BASELINE, lambda: GCRODR(**options), control=skr.control)
            )
        left = f"{title}, left"
        arms.append(StrategyArm(left, Role.BASELINE, lambda: PublishedGCRODR(**options), is_sorted=is_sorted))
    arms.append(reset_arm)
    if structure.is_sequence and not structure.has_constant_matrix:  # where recycling was found to be worth most
        title = "GCRO-DR(60, 20) + SOR"
        larger = options | {"m": 60, "pc": "sor"}
        reset = f"{title}, reset"
        arms.append(StrategyArm(f"{title}, in order", Role.BASELINE, lambda: GCRODR(**larger), control=reset))
        arms.append(StrategyArm(reset, Role.BASELINE, lambda: GCRODR(**larger, recycle=False)))
    return arms
