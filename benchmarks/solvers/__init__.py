"""Benches of the solvers' cost and accuracy, as tables."""
