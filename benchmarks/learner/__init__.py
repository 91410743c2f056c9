"""The bench of what limits training, as a page; torch and NumPy alone."""
