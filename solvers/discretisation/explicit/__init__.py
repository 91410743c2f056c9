"""Steps in time on regular grids without linear systems: finite volumes, Runge-Kutta methods, transforms."""
