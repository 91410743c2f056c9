"""Draws that are never trained on: how they are gathered, and the errors on them."""
