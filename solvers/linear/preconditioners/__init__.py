"""Preconditioners: PETSc's by name, and two for regular grids."""
