"""What limits training, as a page in benchmarks/: `python -m penstock.learner.bench`. Torch and NumPy alone."""
