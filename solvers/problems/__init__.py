"""The problems that come with penstock, one PDE per file."""

PROBLEMS = {
    "bratu": "penstock.solvers.problems.nonlinear.bratu:Bratu",
    "burgers": "penstock.solvers.problems.spectral.burgers:Burgers",
    "calderon": "penstock.solvers.problems.inverse.calderon:Calderon",
    "cantilever": "penstock.solvers.problems.solids.cantilever:Cantilever",
    "cavity": "penstock.solvers.problems.flow.cavity:Cavity",
    "convection_diffusion": "penstock.solvers.problems.steady.convection_diffusion:ConvectionDiffusion",
    "cook": "penstock.solvers.problems.solids.cook:Cook",
    "cylinder": "penstock.solvers.problems.flow.cylinder:Cylinder",
    "darcy": "penstock.solvers.problems.steady.darcy:Darcy",
    "double_glazing": "penstock.solvers.problems.steady.double_glazing:DoubleGlazing",
    "drifting_diffusion": "penstock.solvers.problems.transient.drifting_diffusion:DriftingDiffusion",
    "elasticity": "penstock.solvers.problems.solids.elasticity:Elasticity",
    "heat": "penstock.solvers.problems.transient.heat:Heat",
    "heat_l_shape": "penstock.solvers.problems.transient.heat_l_shape:HeatLShape",
    "heat_plate": "penstock.solvers.problems.transient.heat_plate:HeatPlate",
    "helmholtz": "penstock.solvers.problems.steady.helmholtz:Helmholtz",
    "helmholtz_real": "penstock.solvers.problems.steady.helmholtz_real:HelmholtzReal",
    "hyperelastic_block": "penstock.solvers.problems.solids.hyperelastic_block:HyperelasticBlock",
    "kdv_burgers": "penstock.solvers.problems.spectral.kdv_burgers:KdVBurgers",
    "korteweg_de_vries": "penstock.solvers.problems.spectral.korteweg_de_vries:KortewegDeVries",
    "kuramoto_sivashinsky": "penstock.solvers.problems.spectral.kuramoto_sivashinsky:KuramotoSivashinsky",
    "navier_stokes": "penstock.solvers.problems.spectral.navier_stokes:NavierStokes",
    "nonlinear_diffusion": "penstock.solvers.problems.nonlinear.nonlinear_diffusion:NonlinearDiffusion",
    "poisson": "penstock.solvers.problems.steady.poisson:Poisson",
    "poisson_boundary": "penstock.solvers.problems.steady.poisson_boundary:PoissonBoundary",
    "poisson_sources": "penstock.solvers.problems.steady.poisson_sources:PoissonSources",
    "poisson_with_hole": "penstock.solvers.problems.steady.poisson_with_hole:PoissonWithHole",
    "random_cylinder": "penstock.solvers.problems.flow.random_cylinder:RandomCylinder",
    "scattering": "penstock.solvers.problems.inverse.scattering:Scattering",
    "stokes": "penstock.solvers.problems.flow.stokes:Stokes",
    "store": "penstock.solvers.problems.stored:Stored",
    "thermal": "penstock.solvers.problems.steady.thermal:Thermal",
    "vortex_street": "penstock.solvers.problems.flow.vortex_street:VortexStreet",
    "wave_1d": "penstock.solvers.problems.spectral.wave_1d:Wave1D",
}
"""Names for `problem.name`, with the class behind each.

Classes are imported on use, so that listing the names needs no solver.
"""
