"""Equations as the values of cells: conservation laws and reactions, without linear systems."""
