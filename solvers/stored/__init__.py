"""Samples on disk that solvers wrote, to be trained on later."""
