"""Errors on draws that are never trained on."""
