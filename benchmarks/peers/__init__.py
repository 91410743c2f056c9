"""Peers of our problems: loops that solve the same draws without penstock, one bench per module."""
