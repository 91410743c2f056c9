"""What a run takes of a machine: cores, memory, a device."""
