"""Neural operators on grids by truncated transforms."""
