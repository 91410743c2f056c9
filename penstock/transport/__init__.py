"""The way of samples from solvers to the learner."""
