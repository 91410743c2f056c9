"""Data of inverse problems: many boundary functions for one medium, one PDE per file."""
