"""What is drawn for a simulation: parameter spaces, and random fields as their entries."""
