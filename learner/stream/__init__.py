"""The stream, its order, and the way from it into the buffer: what counts, and what paces it."""
