"""Pictures of samples and trajectories, as files."""
