"""Operators that go through a regular grid, or a few tokens, inside the model."""
