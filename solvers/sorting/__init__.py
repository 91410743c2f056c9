"""The order in which the systems of a lease are solved, and whether it pays."""
