"""Samples that are never trained on: how they are gathered, and errors on them."""
