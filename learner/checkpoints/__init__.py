"""What a run is resumed from, and where it is kept."""
