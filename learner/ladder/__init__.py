"""The limit ladder: what limits training, measured for a case."""
