"""Problems on domains of random shape, one PDE per file."""
