"""The way of samples from solvers to the learner: memory that they share, or a network."""
