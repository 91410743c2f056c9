"""Neural operators on grids by convolutions whose kernels reach a number of cells."""
