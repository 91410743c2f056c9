"""Problems in time, one PDE per file; every step is a sample."""
