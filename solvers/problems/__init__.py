"""The problems that come with penstock, one PDE a file."""

PROBLEMS = {
    "darcy": "penstock.solvers.problems.steady.darcy:Darcy",
}
"""Names for `problem.name`, with the class behind each; imported on use, so that listing them needs no solver."""
