"""Discretisations, which turn a PDE into linear systems.

Finite elements by DOLFINx, simplices and stencils on regular grids, and Newton's method.
"""
