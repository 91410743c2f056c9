"""What became of every simulation, and what a run that must repeat depends on."""
