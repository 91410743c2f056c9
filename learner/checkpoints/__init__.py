"""Checkpoints, from which a run is resumed, and where they are kept."""
