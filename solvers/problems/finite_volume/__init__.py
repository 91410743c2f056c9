"""Conservation laws and reactions on cells: there are no linear systems."""
