"""The stream of samples, its order, and the way from it into the buffer."""
