"""The commands, but for what a run does."""
