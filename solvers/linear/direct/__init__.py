"""Strategies that factor a matrix: every time, once, or now and then."""
