"""Runs in the background: on this machine, in a Ray cluster, by a batch system."""
