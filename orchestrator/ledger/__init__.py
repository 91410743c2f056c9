"""How every simulation ended, and what a run that must repeat depends on."""
