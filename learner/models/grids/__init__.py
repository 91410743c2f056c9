"""Neural operators whose fields sit on one grid of one to three axes."""
