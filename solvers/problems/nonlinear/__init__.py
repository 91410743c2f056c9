"""Nonlinear problems by Newton's method, one PDE per file."""
