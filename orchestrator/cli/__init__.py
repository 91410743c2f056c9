"""The command line: every command, without the run itself."""
