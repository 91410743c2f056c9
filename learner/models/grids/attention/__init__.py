"""Neural operators on grids by attention."""
