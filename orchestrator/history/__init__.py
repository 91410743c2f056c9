"""What run folders tell: which runs there are, how they differ, why one failed."""
