"""What the solvers cost and how accurate they are, as tables."""
