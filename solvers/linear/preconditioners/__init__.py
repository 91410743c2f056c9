"""Preconditioners: those of PETSc by name, and two for regular grids."""
