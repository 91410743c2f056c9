"""The driver of a run, its workers, and what it watches."""
