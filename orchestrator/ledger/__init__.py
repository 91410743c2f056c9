"""Which simulation is whose, and in which order they are given out and taken in."""
