"""What penstock's parts cost and how accurate they are: `python -m benchmarks`, from a checkout."""
