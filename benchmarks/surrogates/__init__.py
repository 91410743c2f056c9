"""Benches of what is trained: every problem, and every model, by the command line."""
