"""Data of inverse problems: many boundary functions per medium, one file each."""
