"""Elastic bodies by finite elements."""
