"""What a model is tried with before a run: random samples, and all that a run will do with it."""
