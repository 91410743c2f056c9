"""Problems without time, one PDE per file."""
