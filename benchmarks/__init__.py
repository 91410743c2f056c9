"""Benches of penstock's cost and accuracy: `python -m benchmarks`, from a checkout."""
