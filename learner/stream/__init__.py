"""From the stream into the buffer: ingestion, and the two ways in which it is paced."""
