"""All ways to solve, on the systems of one problem: who is fastest, and what `auto` makes of it."""
