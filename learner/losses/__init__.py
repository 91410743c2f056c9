"""Losses, and the norms that they are made of."""
