"""The problems that come with penstock, one PDE per file."""

PROBLEMS = {
    "bratu": "penstock.solvers.problems.nonlinear.bratu:Bratu",
    "burgers": "penstock.solvers.problems.spectral.burgers:Burgers",
    "cavity": "penstock.solvers.problems.flow.cavity:Cavity",
    "convection_diffusion": "penstock.solvers.problems.steady.convection_diffusion:ConvectionDiffusion",
    "cylinder": "penstock.solvers.problems.flow.cylinder:Cylinder",
    "darcy": "penstock.solvers.problems.steady.darcy:Darcy",
    "drifting_diffusion": "penstock.solvers.problems.transient.drifting_diffusion:DriftingDiffusion",
    "heat": "penstock.solvers.problems.transient.heat:Heat",
    "heat_l_shape": "penstock.solvers.problems.transient.heat_l_shape:HeatLShape",
    "helmholtz": "penstock.solvers.problems.steady.helmholtz:Helmholtz",
    "navier_stokes": "penstock.solvers.problems.spectral.navier_stokes:NavierStokes",
    "nonlinear_diffusion": "penstock.solvers.problems.nonlinear.nonlinear_diffusion:NonlinearDiffusion",
    "poisson": "penstock.solvers.problems.steady.poisson:Poisson",
    "poisson_with_hole": "penstock.solvers.problems.steady.poisson_with_hole:PoissonWithHole",
    "random_cylinder": "penstock.solvers.problems.flow.random_cylinder:RandomCylinder",
    "stokes": "penstock.solvers.problems.flow.stokes:Stokes",
    "vortex_street": "penstock.solvers.problems.flow.vortex_street:VortexStreet",
}
"""Names for `problem.name`, with the class behind each.

Classes are imported on use, so that listing the names needs no solver.
"""
