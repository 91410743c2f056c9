"""Incompressible flows in channels and boxes, one PDE per file."""
