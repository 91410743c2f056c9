"""Benches of penstock's cost and accuracy, run from a checkout.

The command is `python -m benchmarks`.
"""
