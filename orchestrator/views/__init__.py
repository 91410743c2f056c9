"""What people see of a run: in a terminal, as metrics, in pictures."""
