"""The report of a run: one HTML page, which asks for nothing from a network."""
