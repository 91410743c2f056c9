"""Operators whose points attend."""
