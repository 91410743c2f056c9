"""The configuration of a run: its keys, and how a file becomes one."""
