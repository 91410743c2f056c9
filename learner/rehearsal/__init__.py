"""The rehearsal: a model is tried on random samples before a run."""
