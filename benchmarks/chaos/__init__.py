"""Runs that are disturbed on purpose, with faults by a seeded plan."""
