"""Operators by messages along the edges of graphs."""
