"""The report of a run: one HTML page, which loads nothing from a network."""
