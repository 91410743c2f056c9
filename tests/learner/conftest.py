"""Hypothesis measures no time: on a loaded machine an example may take any."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
