"""Steps in time without linear systems: finite volumes and transforms."""
