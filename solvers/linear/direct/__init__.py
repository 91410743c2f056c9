"""Strategies that factor a matrix: anew, once, or now and then."""
