"""Rollouts: a surrogate of a step in time that is given what it predicted."""
