"""The problems that come with penstock, one PDE per file."""

PROBLEMS = {
    "advection": "penstock.solvers.problems.finite_volume.advection:Advection",
    "bratu": "penstock.solvers.problems.nonlinear.bratu:Bratu",
    "burgers": "penstock.solvers.problems.spectral.burgers:Burgers",
    "burgers_shocks": "penstock.solvers.problems.finite_volume.burgers_shocks:BurgersShocks",
    "convection_diffusion": "penstock.solvers.problems.steady.convection_diffusion:ConvectionDiffusion",
    "darcy": "penstock.solvers.problems.steady.darcy:Darcy",
    "diffusion_reaction": "penstock.solvers.problems.finite_volume.diffusion_reaction:DiffusionReaction",
    "drifting_diffusion": "penstock.solvers.problems.transient.drifting_diffusion:DriftingDiffusion",
    "gray_scott": "penstock.solvers.problems.spectral.gray_scott:GrayScott",
    "heat": "penstock.solvers.problems.transient.heat:Heat",
    "heat_l_shape": "penstock.solvers.problems.transient.heat_l_shape:HeatLShape",
    "helmholtz": "penstock.solvers.problems.steady.helmholtz:Helmholtz",
    "lorenz": "penstock.solvers.problems.transient.lorenz:Lorenz",
    "navier_stokes": "penstock.solvers.problems.spectral.navier_stokes:NavierStokes",
    "nonlinear_diffusion": "penstock.solvers.problems.nonlinear.nonlinear_diffusion:NonlinearDiffusion",
    "poisson": "penstock.solvers.problems.steady.poisson:Poisson",
    "poisson_with_hole": "penstock.solvers.problems.steady.poisson_with_hole:PoissonWithHole",
    "shallow_water": "penstock.solvers.problems.finite_volume.shallow_water:ShallowWater",
}
"""Names for `problem.name`, with the class behind each.

Classes are imported on use, so that listing the names needs no solver.
"""
