"""Runs of the command line watched from outside: disturbed ones, and a long one."""
