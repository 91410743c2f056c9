"""Operators that bring their inputs to a point through one vector."""
