"""Steps in time on regular grids that need no linear systems."""
